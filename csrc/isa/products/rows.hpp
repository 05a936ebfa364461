// y = W x: a few rows and a few columns of the batch at a time, so that an expanded register of weights meets every
// activation that is loaded, and a loaded activation meets every row. Sums of one (row, batch) pair stay in one register.

template <class T, int Kept, int Rows, int Batch>
static void dot_block(const RowsTask& task, std::int64_t row, std::int64_t batch) {
  const std::int64_t steps = task.matrix.view.steps();
  Weights<T, Kept> weights[Rows];
  const std::uint8_t* index[Rows];
  Vec sums[Rows][Batch];
  for (int r = 0; r < Rows; ++r) {
    weights[r].values = values_of<T>(task.matrix, row + r);
    index[r] = index_of(task.matrix.view, row + r);
    for (int b = 0; b < Batch; ++b) sums[r][b] = zeros();
  }
  const float* x = task.x + batch * task.x_stride;
  for (std::int64_t step = 0; step < steps; ++step, x += kStep) {
    for (int r = 0; r < Rows; ++r) weights[r].begin(mask_at(index[r] + 4 * step));
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      Vec w[Rows];
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) w[r] = weights[r].part(part);
#pragma GCC unroll 16
      for (int b = 0; b < Batch; ++b) {
        const Vec activation = load(x + b * task.x_stride + part * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) sums[r][b] = fma(w[r], activation, sums[r][b]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int b = 0; b < Batch; ++b)
      task.y[(batch + b) * task.y_stride + row + r] = total(sums[r][b]) + (task.bias ? task.bias[row + r] : 0.0f);
}

template <class T, int Kept, int Rows, int Batch>
static void dot_batches(const RowsTask& task, std::int64_t row) {
  std::int64_t b = 0;
  for (; b + Batch <= task.batch; b += Batch) dot_block<T, Kept, Rows, Batch>(task, row, b);
  if constexpr (Batch > 1) {
    switch (task.batch - b) {
      case 3: if constexpr (Batch > 3) dot_block<T, Kept, Rows, 3>(task, row, b); break;
      case 2: if constexpr (Batch > 2) dot_block<T, Kept, Rows, 2>(task, row, b); break;
      case 1: dot_block<T, Kept, Rows, 1>(task, row, b); break;
      default: break;
    }
  }
}

static void multiply_rows(const RowsTask& task, std::int64_t first_row, std::int64_t count) {
  for_pattern(task.matrix.view, [&]<class T, int Kept>() {
    std::int64_t row = first_row;
    const std::int64_t end = first_row + count;
    for (; row + kRowsAtOnce <= end; row += kRowsAtOnce) dot_batches<T, Kept, kRowsAtOnce, kBatchAtOnce>(task, row);
    for (; row < end; ++row) dot_batches<T, Kept, 1, kBatchAtOnce>(task, row);
  });
}
