// Activations of products: scratch memory, conversion to float32 and back, panels.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "packed.hpp"

namespace bisparse {

struct AlignedDelete {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};

// Scratch of a call; not initialised.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : memory_(::operator new(static_cast<std::size_t>(count > 0 ? count : 1) * sizeof(T), std::align_val_t{64})) {}
  T* get() const { return static_cast<T*>(memory_.get()); }

 private:
  std::unique_ptr<void, AlignedDelete> memory_;
};

struct Source {
  const void* data;                   // float32 or bfloat16
  Dtype dtype;
  std::int64_t offset;                // in elements
};

void to_float(const Source& from, std::int64_t count, float* to);
void from_float(const float* from, std::int64_t count, void* to, Dtype dtype, std::int64_t offset);

// How a (batch, cols) matrix is cut into panels; see packed.hpp.
struct Panels {
  std::int64_t batch, cols, batch_at_once;
  bool even_odd;                      // every step holds its even columns, then its odd ones

  bool plain() const { return batch == 1 && !even_odd && cols % kStep == 0; }  // equal to the matrix itself
  const float* fill(const Source& from, float* panels) const;  // returns `panels`, or the source where that serves as well
  void empty(const float* panels, void* to, Dtype dtype, std::int64_t offset) const;

 private:
  std::int64_t steps() const { return (cols + kStep - 1) / kStep; }
  template <class Body>
  void for_steps(Body body) const;
};

// A (features, lanes) panel of up to 64 batch entries side by side, and the strides of the matrix it comes from.
struct LanePanel {
  std::int64_t batch, lanes;          // lanes >= batch; those behind the last entry hold zeros
  std::int64_t feature_stride, entry_stride;

  void fill(const Source& from, std::int64_t features, std::int64_t padded_features, float* panel) const;
  void empty(const float* panel, std::int64_t features, void* to, Dtype dtype, std::int64_t offset) const;
};

}  // namespace bisparse
