#pragma once

#include <nanobind/nanobind.h>

namespace bisparse {

void bind_packed(nanobind::module_& m);

}  // namespace bisparse
