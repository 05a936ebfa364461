// y = W x for small batches: a few rows and a few columns of the batch at a time, so that an expanded register of weights
// meets every activation that is loaded, and a loaded activation meets every row. Sums of one (row, batch) pair stay in one
// register.

template <class T, int Rows, int Batch>
static void dot_block(const RowsTask& task, std::int64_t row, std::int64_t batch) {
  const std::int64_t steps = task.matrix.view.steps();
  Weights<T> weights[Rows];
  const std::uint8_t* index[Rows];
  Vec sums[Rows][Batch];
  for (int r = 0; r < Rows; ++r) {
    weights[r].values = values_of<T>(task.matrix, row + r);
    index[r] = index_of(task.matrix.view, row + r);
    for (int b = 0; b < Batch; ++b) sums[r][b] = zeros();
  }
  const float* x = task.x + batch * steps * kStep;
  for (std::int64_t step = 0; step < steps; ++step, x += Batch * kStep) {
    for (int r = 0; r < Rows; ++r) weights[r].begin(mask_at(index[r] + 4 * step));
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      Vec w[Rows];
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) w[r] = weights[r].part(part);
#pragma GCC unroll 16
      for (int b = 0; b < Batch; ++b) {
        Vec activation = load(x + b * kStep + part * kLanes);
        if constexpr (Rows > 1) hold(activation);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) sums[r][b] = fma(w[r], activation, sums[r][b]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int b = 0; b < Batch; ++b)
      task.y[(batch + b) * task.y_stride + row + r] = total(sums[r][b]) + (task.bias ? task.bias[row + r] : 0.0f);
}

template <class T, int Batch>
static void dot_rows(const RowsTask& task, std::int64_t row, std::int64_t end, std::int64_t batch) {
  constexpr int rows = rows_at_once(Batch);
  for (; row + rows <= end; row += rows) dot_block<T, rows, Batch>(task, row, batch);
  for (; row < end; ++row) dot_block<T, 1, Batch>(task, row, batch);
}

static void multiply_rows(const RowsTask& task, std::int64_t first_row, std::int64_t count) {
  for_dtype(task.matrix.view.dtype, [&]<class T>() {
    // A group of rows stays in the cache while the blocks of the batch pass.
    for (std::int64_t row = first_row; row < first_row + count; row += kRowGroup) {
      const std::int64_t end = at_most(row + kRowGroup, first_row + count);
      for_batches(task.batch, [&]<int Batch>(std::int64_t batch) { dot_rows<T, Batch>(task, row, end, batch); });
    }
  });
}
