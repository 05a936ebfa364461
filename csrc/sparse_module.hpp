#pragma once

#include <nanobind/nanobind.h>

namespace bisparse {

void bind_sparse(nanobind::module_& m);

}  // namespace bisparse
