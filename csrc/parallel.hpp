// Threads per call, no lasting pool: a pool would deadlock in forked worker processes.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace bisparse {

// IEEE arithmetic for the time of a call: the caller may have asked its thread to flush denormals.
class FloatEnvironment {
#if defined(__SSE2__)
 public:
  FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~FloatEnvironment() { _mm_setcsr(saved_); }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  unsigned saved_;
#endif
};

// Runs body(chunk, worker) for every chunk; workers take chunks in turn. Exceptions must not leave `body`.
template <class Body>
void for_each_chunk(std::int64_t chunks, int threads, Body body) {
  std::atomic<std::int64_t> next{0};
  auto work = [&](int worker) {
    [[maybe_unused]] const FloatEnvironment environment;
    for (std::int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) body(chunk, worker);
  };
  std::vector<std::thread> helpers;
  try {
    for (int worker = 1; worker < threads && worker < chunks; ++worker) helpers.emplace_back(work, worker);
  } catch (const std::exception&) {  // the system starts no more threads: those there are do all the work
  }
  work(0);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace bisparse
