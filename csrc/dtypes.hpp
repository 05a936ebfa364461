// The core's name for an array's dtype.
#pragma once

#include <nanobind/ndarray.h>

#include <stdexcept>

#include "mask_problem.hpp"

namespace bisparse {

inline Dtype dtype_of(const nanobind::dlpack::dtype& type) {
  using Code = nanobind::dlpack::dtype_code;
  const auto is = [&](Code code, int bits) { return type.code == static_cast<std::uint8_t>(code) && type.bits == bits; };
  if (is(Code::Float, 16)) return Dtype::f16;
  if (is(Code::Bfloat, 16)) return Dtype::bf16;
  if (is(Code::Float, 32)) return Dtype::f32;
  if (is(Code::Float, 64)) return Dtype::f64;
  if (is(Code::Int, 8)) return Dtype::i8;
  if (is(Code::Int, 16)) return Dtype::i16;
  if (is(Code::Int, 32)) return Dtype::i32;
  if (is(Code::Int, 64)) return Dtype::i64;
  if (is(Code::UInt, 8) || is(Code::Bool, 8)) return Dtype::u8;
  throw std::invalid_argument("unsupported dtype: use a float or integer of 8 to 64 bits");
}

}  // namespace bisparse
