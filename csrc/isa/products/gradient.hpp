// The kept entries of y^T x: a small block of the dense product is summed in registers, and only its kept entries are stored.

template <int Rows>
static void gradient_block(const GradientTask& task, const float (*y)[Rows], std::int64_t row, std::int64_t step,
                           std::int64_t slots[Rows]) {
  Vec sums[Rows][kParts];
  for (int r = 0; r < Rows; ++r)
    for (int part = 0; part < kParts; ++part) sums[r][part] = zeros();
  const float* x = task.x + step * task.batch * kStep;
  for (std::int64_t b = 0; b < task.batch; ++b, x += kStep) {
    Vec activation[kParts];
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) activation[part] = load(x + part * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec scale = splat(y[b][r]);
#pragma GCC unroll 8
      for (int part = 0; part < kParts; ++part) sums[r][part] = fma(scale, activation[part], sums[r][part]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    float dense[kStep];
    for (int part = 0; part < kParts; ++part) store(dense + part * kLanes, sums[r][part]);
    float* out = task.gradient + (row + r) * task.view.row_values() + slots[r];
    for (std::uint32_t mask = mask_at(index_of(task.view, row + r) + 4 * step); mask; mask &= mask - 1, ++out, ++slots[r]) {
      const float sum = dense[__builtin_ctz(mask)];
      *out = task.add ? *out + sum : sum;
    }
  }
}

template <int Rows>
static void gradient_rows(const GradientTask& task, std::int64_t row) {
  std::int64_t slots[Rows] = {};
  float y[kGradientBatch][Rows];  // side by side: entries of the batch, a power of two apart, would push each other out
  for (std::int64_t b = 0; b < task.batch; ++b)
    for (int r = 0; r < Rows; ++r) y[b][r] = task.y[b * task.y_stride + row + r];
  for (std::int64_t step = 0; step < task.view.steps(); ++step) gradient_block<Rows>(task, y, row, step, slots);
}

static void gradient_of_values(const GradientTask& task, std::int64_t first_row, std::int64_t count) {
  std::int64_t row = first_row;
  const std::int64_t end = first_row + count;
  for (; row + kGradientRows <= end; row += kGradientRows) gradient_rows<kGradientRows>(task, row);
  for (; row < end; ++row) gradient_rows<1>(task, row);
}
