// x = W^T y: rows are read in order, a few at a time; each adds its multiple to a slab of results that stays in the cache.

template <class T, int Kept, int Rows, int Batch>
static void scatter_block(const ColumnsTask& task, std::int64_t row, std::int64_t batch, std::int64_t first_step,
                          std::int64_t end_step) {
  Weights<T, Kept> weights[Rows];
  const std::uint8_t* index[Rows];
  Vec scale[Rows][Batch];
  for (int r = 0; r < Rows; ++r) {
    weights[r].values = values_of<T>(task.matrix, row + r) + task.matrix.view.slots_before(first_step * kStep);
    index[r] = index_of(task.matrix.view, row + r);
    for (int b = 0; b < Batch; ++b) scale[r][b] = splat(task.y[(batch + b) * task.y_stride + row + r]);
  }
  float* x = task.x + batch * task.x_stride + first_step * kStep;
  for (std::int64_t step = first_step; step < end_step; ++step, x += kStep) {
    for (int r = 0; r < Rows; ++r) weights[r].begin(mask_at(index[r] + 4 * step));
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      Vec w[Rows];
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) w[r] = weights[r].part(part);
#pragma GCC unroll 16
      for (int b = 0; b < Batch; ++b) {
        float* at = x + b * task.x_stride + part * kLanes;
        Vec sum = load(at);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) sum = fma(w[r], scale[r][b], sum);
        store(at, sum);
      }
    }
  }
}

template <class T, int Kept, int Rows, int Batch>
static void scatter_batches(const ColumnsTask& task, std::int64_t row, std::int64_t first, std::int64_t end) {
  std::int64_t b = 0;
  for (; b + Batch <= task.batch; b += Batch) scatter_block<T, Kept, Rows, Batch>(task, row, b, first, end);
  if constexpr (Batch > 1) {
    switch (task.batch - b) {
      case 3: if constexpr (Batch > 3) scatter_block<T, Kept, Rows, 3>(task, row, b, first, end); break;
      case 2: if constexpr (Batch > 2) scatter_block<T, Kept, Rows, 2>(task, row, b, first, end); break;
      case 1: scatter_block<T, Kept, Rows, 1>(task, row, b, first, end); break;
      default: break;
    }
  }
}

static void multiply_columns(const ColumnsTask& task, std::int64_t first_step, std::int64_t steps) {
  const std::int64_t end_step = first_step + steps, rows = task.matrix.view.rows;
  for (std::int64_t b = 0; b < task.batch; ++b)
    __builtin_memset(task.x + b * task.x_stride + first_step * kStep, 0, static_cast<std::size_t>(steps * kStep) * sizeof(float));
  for_pattern(task.matrix.view, [&]<class T, int Kept>() {
    std::int64_t row = 0;
    for (; row + kRowsAtOnce <= rows; row += kRowsAtOnce)
      scatter_batches<T, Kept, kRowsAtOnce, kBatchAtOnce>(task, row, first_step, end_step);
    for (; row < rows; ++row) scatter_batches<T, Kept, 1, kBatchAtOnce>(task, row, first_step, end_step);
  });
}
