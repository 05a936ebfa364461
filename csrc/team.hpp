// The threads that PyTorch's own products run on, borrowed for the time of a call.
//
// A product of 200 us cannot pay for starting threads, and PyTorch's threads wait for their next work by spinning, for
// milliseconds, on the cores where new threads would have to run. So chunks are handed to that very team, through
// GOMP_parallel, which every OpenMP library in use with PyTorch on Linux exports. Nothing is linked, and no pool is owned. A
// forked child must not touch its parent's team (it would wait for ever): it starts threads of its own, as does a process
// without such a library.
#pragma once

#include <algorithm>

#include "parallel.hpp"

#if defined(__linux__)
#include <dlfcn.h>
#include <unistd.h>
#endif

namespace bisparse {

class BorrowedTeam {
 public:
  using Start = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

  // Null where there is none, or where it belongs to the parent process.
  static Start find() {
#if defined(__linux__)
    static const BorrowedTeam team;
    return team.owner_ == getpid() ? team.start_ : nullptr;
#else
    return nullptr;
#endif
  }

 private:
#if defined(__linux__)
  BorrowedTeam() : start_(reinterpret_cast<Start>(dlsym(RTLD_DEFAULT, "GOMP_parallel"))), owner_(getpid()) {}

  Start start_;
  pid_t owner_;
#endif
};

// As for_each_chunk, on the borrowed team where there is one.
template <class Body>
void for_each_chunk_in_team(std::int64_t chunks, int threads, Body body) {
  struct Job {
    Body& body;
    std::int64_t chunks;
    std::atomic<std::int64_t> next{0};
    std::atomic<int> workers{0};

    void work() {
      [[maybe_unused]] const FloatEnvironment environment;
      const int worker = workers.fetch_add(1, std::memory_order_relaxed);
      for (std::int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) body(chunk, worker);
    }
  };
  threads = static_cast<int>(std::min<std::int64_t>(threads, chunks));
  const BorrowedTeam::Start start = threads > 1 ? BorrowedTeam::find() : nullptr;
  if (start == nullptr) return for_each_chunk(chunks, threads, body);
  Job job{body, chunks};
  start([](void* data) { static_cast<Job*>(data)->work(); }, &job, static_cast<unsigned>(threads), 0);
}

}  // namespace bisparse
