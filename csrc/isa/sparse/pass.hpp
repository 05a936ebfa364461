// One pass over the entries of an order; see sparse.hpp. What is wanted is known when compiling: the product (in either order),
// the gradient (by rows), or both (by columns).

constexpr int kSums = 8;  // independent sums that hide the latency of a multiply-add

template <class T, int L, bool Product, bool Dots, bool Permuted>
struct Pass {
  static constexpr int W = width_of<T>(L), N = L / W;
  static constexpr int kTogether = N < kSums ? kSums / N : 1;
  typedef Vec<T, W> V;

  const PassTask& task;
  const std::int32_t* places = task.order.places;
  const std::int32_t* perm = task.order.perm;
  const T* values = static_cast<const T*>(task.values);
  const T* panel = static_cast<const T*>(task.panel);
  T* gradient = static_cast<T*>(task.gradient);

  inline std::int64_t place_of(std::int64_t k) const { return Permuted ? perm[k] : k; }
  inline const T* line(std::int64_t k) const { return panel + static_cast<std::int64_t>(places[k]) * L; }

  // Some entries' multiples of their lines, each added to sums of its own.
  template <int Count>
  inline void add(std::int64_t k, V sums[][N]) const {
#pragma GCC unroll 8
    for (int u = 0; u < Count; ++u) {
      const T* x = line(k + u);
      const V scale = V{} + values[place_of(k + u)];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) sums[u][n] = sums[u][n] + scale * load<T, W>(x + n * W);
    }
  }

  inline void product_only(std::int64_t k, std::int64_t end, T start, T* tile) const {
    V sums[kTogether][N];
#pragma GCC unroll 8
    for (int u = 0; u < kTogether; ++u)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) sums[u][n] = V{} + (u ? T(0) : start);
    for (; k + kTogether <= end; k += kTogether) add<kTogether>(k, sums);
    for (; k < end; ++k) add<1>(k, sums);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      V sum = sums[0][n];
#pragma GCC unroll 8
      for (int u = 1; u < kTogether; ++u) sum = sum + sums[u][n];
      store<T, W>(tile + n * W, sum);
    }
  }

  // Up to W entries: their dots with the row's own activations and, where wanted, their part of the product.
  inline void dots(std::int64_t k, int count, const T* own, V* sums) const {
    V partial[W];
    for (int u = 0; u < count; ++u) {
      const T* x = line(k + u);
      V dot{};
      [[maybe_unused]] const V scale = V{} + (Product ? values[place_of(k + u)] : T(0));
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        const V entry = load<T, W>(x + n * W);
        dot = dot + entry * load<T, W>(own + n * W);
        if constexpr (Product) sums[n] = sums[n] + scale * entry;
      }
      partial[u] = dot;
    }
    for (int u = count; u < W; ++u) partial[u] = V{};
    T sum[W];
    store<T, W>(sum, totals<W, W / 2>(partial));
    for (int u = 0; u < count; ++u) {
      T& to = gradient[place_of(k + u)];
      to = task.add ? to + sum[u] : sum[u];
    }
  }

  inline void with_dots(std::int64_t k, std::int64_t end, const T* own, T* tile) const {
    V sums[N] = {};
    for (; k < end; k += W) dots(k, static_cast<int>(at_most(W, end - k)), own, sums);
    if constexpr (Product)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) store<T, W>(tile + n * W, sums[n]);
  }

  void rows(std::int64_t first, std::int64_t count) const {
    alignas(64) T tile[kSparseRows * L];
    alignas(64) T own[Dots ? kSparseRows * L : 1];
    if constexpr (Dots) turn_in<T, L>(task.own, task.own_dtype, task.order.rows, first, count, task.batch, own);
    for (std::int64_t r = 0; r < count; ++r) {
      const std::int64_t k = task.order.starts[first + r], end = task.order.starts[first + r + 1];
      if constexpr (Dots) with_dots(k, end, own + r * L, tile + r * L);
      else product_only(k, end, task.bias ? static_cast<const T*>(task.bias)[first + r] : T(0), tile + r * L);
    }
    if constexpr (Product) turn_out<T, L>(tile, first, count, task.batch, task.output, task.dtype, task.order.rows);
  }
};

// A batch of one: the panel is a vector, and every entry meets one number of it.
template <class T, bool Product, bool Dots, bool Permuted>
struct Pass<T, 1, Product, Dots, Permuted> {
  const PassTask& task;

  void rows(std::int64_t first, std::int64_t count) const {
    const std::int32_t* places = task.order.places;
    const std::int32_t* perm = task.order.perm;
    const T* values = static_cast<const T*>(task.values);
    const T* panel = static_cast<const T*>(task.panel);
    T* gradient = static_cast<T*>(task.gradient);
    T tile[kSparseRows], own[kSparseRows];
    if constexpr (Dots) read_some(task.own, task.own_dtype, first, count, own);
    for (std::int64_t r = 0; r < count; ++r) {
      std::int64_t k = task.order.starts[first + r];
      const std::int64_t end = task.order.starts[first + r + 1];
      T sums[kSums] = {};
      const auto take = [&](std::int64_t at, T& sum) {
        const T x = panel[places[at]];
        const std::int64_t place = Permuted ? perm[at] : at;
        if constexpr (Product) sum += values[place] * x;
        if constexpr (Dots) gradient[place] = own[r] * x + (task.add ? gradient[place] : T(0));
      };
      for (; k + kSums <= end; k += kSums)
#pragma GCC unroll 8
        for (int u = 0; u < kSums; ++u) take(k + u, sums[u]);
      for (; k < end; ++k) take(k, sums[0]);
      if constexpr (Product) {
        T sum = task.bias ? static_cast<const T*>(task.bias)[first + r] : T(0);
        for (int u = 0; u < kSums; ++u) sum += sums[u];
        tile[r] = sum;
      }
    }
    if constexpr (Product) write_some(tile, count, task.output, task.dtype, first);
  }
};

template <class T, int L>
static void pass_groups(const PassTask& task, std::int64_t first, std::int64_t end) {
  for (std::int64_t row = first; row < end; row += kSparseRows) {
    const std::int64_t count = at_most(kSparseRows, end - row);
    if (task.own == nullptr) {
      if (task.order.perm) Pass<T, L, true, false, true>{task}.rows(row, count);
      else Pass<T, L, true, false, false>{task}.rows(row, count);
    } else {
      if (task.output) Pass<T, L, true, true, true>{task}.rows(row, count);
      else Pass<T, L, false, true, false>{task}.rows(row, count);
    }
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
