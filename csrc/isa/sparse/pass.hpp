// One pass over the entries of an order; see sparse.hpp.

constexpr int kSums = 8;  // independent sums that hide the latency of a multiply-add

// What a pass reads, with types: `L` lanes of T as N vectors of W.
template <class T, int L>
struct Lines {
  static constexpr int W = width_of<T>(L), N = L / W;
  typedef Vec<T, W> V;

  const std::int32_t* places;
  const T* panel;

  explicit Lines(const PassTask& task) : places(task.order.places), panel(static_cast<const T*>(task.panel)) {}
  inline const T* of(std::int64_t k) const { return panel + static_cast<std::int64_t>(places[k]) * L; }
};

// Some entries' multiples of their lines, each added to sums of its own.
template <int Count, class T, int L, class V, int N>
[[gnu::always_inline]] static inline void add_lines(const Lines<T, L>& lines, const T* values, std::int64_t k, V sums[][N]) {
#pragma GCC unroll 8
  for (int u = 0; u < Count; ++u) {
    const T* x = lines.of(k + u);
    const V scale = V{} + values[k + u];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sums[u][n] = sums[u][n] + scale * load<T, L / N>(x + n * (L / N));
  }
}

// to[l] = start + sum of values[k] line[k][l] for one row.
template <class T, int L>
static inline void sum_row(const Lines<T, L>& lines, const T* values, std::int64_t k, std::int64_t end, T start, T* to) {
  constexpr int W = Lines<T, L>::W, N = Lines<T, L>::N, together = N < kSums ? kSums / N : 1;
  typedef Vec<T, W> V;
  V sums[together][N];
#pragma GCC unroll 8
  for (int u = 0; u < together; ++u)
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sums[u][n] = V{} + (u ? T(0) : start);
  for (; k + together <= end; k += together) add_lines<together, T, L, V, N>(lines, values, k, sums);
  for (; k < end; ++k) add_lines<1, T, L, V, N>(lines, values, k, sums);
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) {
    V sum = sums[0][n];
#pragma GCC unroll 8
    for (int u = 1; u < together; ++u) sum = sum + sums[u][n];
    store<T, W>(to + n * W, sum);
  }
}

// gradient[k] (+)= the dot of line[k] with the row's own activations, for up to W entries.
template <class T, int L>
[[gnu::always_inline]] static inline void dot_some(const Lines<T, L>& lines, const T* own, std::int64_t k, int count, bool add,
                                                   T* gradient) {
  constexpr int W = Lines<T, L>::W, N = Lines<T, L>::N;
  Vec<T, W> partial[W];
  for (int u = 0; u < count; ++u) {
    const T* x = lines.of(k + u);
    Vec<T, W> dot{};
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) dot = dot + load<T, W>(x + n * W) * load<T, W>(own + n * W);
    partial[u] = dot;
  }
  for (int u = count; u < W; ++u) partial[u] = partial[0];  // not used
  T sums[W];
  store<T, W>(sums, totals<W, W / 2>(partial));
  for (int u = 0; u < count; ++u) gradient[k + u] = add ? gradient[k + u] + sums[u] : sums[u];
}

template <class T, int L>
static void sum_rows(const PassTask& task, std::int64_t first, std::int64_t count) {
  alignas(64) T tile[kSparseRows * L];
  const Lines<T, L> lines(task);
  const std::int32_t* starts = task.order.starts + first;
  const T* bias = static_cast<const T*>(task.bias);
  for (std::int64_t r = 0; r < count; ++r)
    sum_row<T, L>(lines, static_cast<const T*>(task.values), starts[r], starts[r + 1], bias ? bias[first + r] : T(0), tile + r * L);
  turn_out<T, L>(tile, first, count, task.batch, task.output, task.dtype, task.order.rows);
}

template <class T, int L>
static void dot_rows(const PassTask& task, std::int64_t first, std::int64_t count) {
  constexpr int W = Lines<T, L>::W;
  alignas(64) T own[kSparseRows * L];
  const Lines<T, L> lines(task);
  const std::int32_t* starts = task.order.starts + first;
  turn_in<T, L>(task.own, task.dtype, task.order.rows, first, count, task.batch, own);
  for (std::int64_t r = 0; r < count; ++r)
    for (std::int64_t k = starts[r]; k < starts[r + 1]; k += W)
      dot_some<T, L>(lines, own + r * L, k, static_cast<int>(at_most(W, starts[r + 1] - k)), task.add, static_cast<T*>(task.gradient));
}

// A batch of one: the panel is a vector, and every entry meets one number of it.
template <class T>
static void sum_rows_of_one(const PassTask& task, std::int64_t first, std::int64_t count) {
  const std::int32_t* places = task.order.places;
  const T *values = static_cast<const T*>(task.values), *x = static_cast<const T*>(task.panel);
  const T* bias = static_cast<const T*>(task.bias);
  T tile[kSparseRows];
  for (std::int64_t r = 0; r < count; ++r) {
    std::int64_t k = task.order.starts[first + r];
    const std::int64_t end = task.order.starts[first + r + 1];
    T sums[kSums] = {};
    for (; k + kSums <= end; k += kSums)
#pragma GCC unroll 8
      for (int u = 0; u < kSums; ++u) sums[u] += values[k + u] * x[places[k + u]];
    for (; k < end; ++k) sums[0] += values[k] * x[places[k]];
    tile[r] = bias ? bias[first + r] : T(0);
    for (int u = 0; u < kSums; ++u) tile[r] += sums[u];
  }
  write_some(tile, count, task.output, task.dtype, first);
}

template <class T>
static void dot_rows_of_one(const PassTask& task, std::int64_t first, std::int64_t count) {
  const std::int32_t *starts = task.order.starts + first, *places = task.order.places;
  const T* x = static_cast<const T*>(task.panel);
  T* gradient = static_cast<T*>(task.gradient);
  T own[kSparseRows];
  read_some(task.own, task.dtype, first, count, own);
  for (std::int64_t r = 0; r < count; ++r)
    for (std::int64_t k = starts[r]; k < starts[r + 1]; ++k) gradient[k] = (task.add ? gradient[k] : T(0)) + own[r] * x[places[k]];
}

template <class T, int L>
static void pass_groups(const PassTask& task, std::int64_t first, std::int64_t end) {
  for (std::int64_t row = first; row < end; row += kSparseRows) {
    const std::int64_t count = at_most(kSparseRows, end - row);
    if constexpr (L == 1) (task.own ? dot_rows_of_one<T> : sum_rows_of_one<T>)(task, row, count);
    else (task.own ? dot_rows<T, L> : sum_rows<T, L>)(task, row, count);
  }
}

template <class T, int L>
static void fill_features(const PanelTask& task, std::int64_t first, std::int64_t count) {
  T* panel = static_cast<T*>(task.panel) + first * L;
  if constexpr (L == 1) read_some(task.source, task.dtype, first, count, panel);
  else turn_in<T, L>(task.source, task.dtype, task.features, first, count, task.batch, panel);
}

// Calls body.template operator()<L>() for the number of lanes.
template <class Body>
static inline void for_lanes(int lanes, Body body) {
  switch (lanes) {
    case 1: body.template operator()<1>(); break;
    case 4: body.template operator()<4>(); break;
    case 8: body.template operator()<8>(); break;
    case 16: body.template operator()<16>(); break;
    case 32: body.template operator()<32>(); break;
    default: body.template operator()<64>(); break;
  }
}

static void fill_panel(const PanelTask& task, std::int64_t first, std::int64_t count) {
  for_lanes(task.lanes, [&]<int L>() {
    if (task.dtype == Dtype::f64) fill_features<double, L>(task, first, count);
    else fill_features<float, L>(task, first, count);
  });
}

static void pass_rows(const PassTask& task, std::int64_t first, std::int64_t count) {
  for_lanes(task.lanes, [&]<int L>() {
    if (task.wide) pass_groups<double, L>(task, first, first + count);
    else pass_groups<float, L>(task, first, first + count);
  });
}
