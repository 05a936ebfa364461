#include "activations.hpp"

#include <algorithm>
#include <cstring>

namespace bisparse {
namespace {

constexpr std::int64_t kTurn = 16;  // side of the squares in which a matrix is transposed

float widen(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

std::uint16_t narrow(float value) {  // to nearest, ties to even; NaN stays NaN
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<std::uint16_t>(((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded) >> 16);
}

// Place of column `c` of a step whose even columns come first.
int even_odd_place(int c) { return c % 2 ? kStep / 2 + c / 2 : c / 2; }

}  // namespace

void to_float(const Source& from, std::int64_t count, float* to) {
  if (from.dtype == Dtype::f32) {
    std::memcpy(to, static_cast<const float*>(from.data) + from.offset, static_cast<std::size_t>(count) * sizeof(float));
  } else {
    const std::uint16_t* words = static_cast<const std::uint16_t*>(from.data) + from.offset;
    for (std::int64_t i = 0; i < count; ++i) to[i] = widen(words[i]);
  }
}

void from_float(const float* from, std::int64_t count, void* to, Dtype dtype, std::int64_t offset) {
  if (dtype == Dtype::f32) {
    std::memcpy(static_cast<float*>(to) + offset, from, static_cast<std::size_t>(count) * sizeof(float));
  } else {
    std::uint16_t* words = static_cast<std::uint16_t*>(to) + offset;
    for (std::int64_t i = 0; i < count; ++i) words[i] = narrow(from[i]);
  }
}

// Calls body(place in the panels, place in the matrix, width) for every step of every batch entry.
template <class Body>
void Panels::for_steps(Body body) const {
  for (std::int64_t first = 0; first < batch;) {
    const std::int64_t size = batch_block(batch - first, batch_at_once);
    for (std::int64_t b = 0; b < size; ++b)
      for (std::int64_t step = 0; step < steps(); ++step)
        body((first * steps() + step * size + b) * kStep, (first + b) * cols + step * kStep,
             std::min<std::int64_t>(kStep, cols - step * kStep));
    first += size;
  }
}

const float* Panels::fill(const Source& from, float* panels) const {
  if (plain() && from.dtype == Dtype::f32) return static_cast<const float*>(from.data) + from.offset;
  for_steps([&](std::int64_t place, std::int64_t entry, std::int64_t width) {
    float natural[kStep] = {};
    float* to = panels + place;
    to_float({from.data, from.dtype, from.offset + entry}, width, even_odd ? natural : to);
    if (even_odd)
      for (int c = 0; c < kStep; ++c) to[even_odd_place(c)] = natural[c];
    else
      std::fill(to + width, to + kStep, 0.0f);
  });
  return panels;
}

void Panels::empty(const float* panels, void* to, Dtype dtype, std::int64_t offset) const {
  for_steps([&](std::int64_t place, std::int64_t entry, std::int64_t width) {
    float natural[kStep];
    for (int c = 0; c < kStep; ++c) natural[c] = panels[place + (even_odd ? even_odd_place(c) : c)];
    from_float(natural, width, to, dtype, offset + entry);
  });
}

void LanePanel::fill(const Source& from, std::int64_t features, std::int64_t padded_features, float* panel) const {
  std::fill(panel + features * lanes, panel + padded_features * lanes, 0.0f);
  if (entry_stride == 1) {
    for (std::int64_t f = 0; f < features; ++f) {
      to_float({from.data, from.dtype, from.offset + f * feature_stride}, batch, panel + f * lanes);
      std::fill(panel + f * lanes + batch, panel + (f + 1) * lanes, 0.0f);
    }
    return;
  }
  for (std::int64_t first = 0; first < features; first += kTurn) {  // a square at a time: both sides stay in the cache
    const std::int64_t count = std::min(kTurn, features - first);
    for (std::int64_t b = 0; b < lanes; ++b) {
      float turned[kTurn] = {};
      if (b < batch) to_float({from.data, from.dtype, from.offset + b * entry_stride + first}, count, turned);
      for (std::int64_t f = 0; f < count; ++f) panel[(first + f) * lanes + b] = turned[f];
    }
  }
}

void LanePanel::empty(const float* panel, std::int64_t features, void* to, Dtype dtype, std::int64_t offset) const {
  if (entry_stride == 1) {
    for (std::int64_t f = 0; f < features; ++f) from_float(panel + f * lanes, batch, to, dtype, offset + f * feature_stride);
    return;
  }
  for (std::int64_t first = 0; first < features; first += kTurn) {
    const std::int64_t count = std::min(kTurn, features - first);
    for (std::int64_t b = 0; b < batch; ++b) {
      float turned[kTurn];
      for (std::int64_t f = 0; f < count; ++f) turned[f] = panel[(first + f) * lanes + b];
      from_float(turned, count, to, dtype, offset + b * entry_stride + first);
    }
  }
}

}  // namespace bisparse
