// Row-wise N:M masks: the K largest of every M consecutive entries of a row; ties go to the lower index.
// Included only inside `namespace bisparse::BISPARSE_ISA`.

template <class T>
struct RowScratch {
  Vec<T> raw[kMaxBlock], x[kMaxBlock], sorted[kMaxBlock];
};

// One vector of complete groups, [entry][lane] in w.x. Writes [lane][entry] bytes and each lane's kept sum.
template <class T, class Shape>
static inline void select_groups(const Shape& shape, RowScratch<T>& w, std::uint8_t* bytes, Sum<T>& sum) {
  const int m = shape.block();
  for (int j = 0; j < m; ++j) w.sorted[j] = w.x[j];
  const Vec<T> level = shape.straddle(w.sorted).above;
  Int<T> room = Int<T>{} + shape.keep();
  for (int j = 0; j < m; ++j) room += w.x[j] > level;  // true is -1
  for (int j = 0; j < m; ++j) {
    const Int<T> tie = (w.x[j] == level) & (room > 0), keep = (w.x[j] > level) | tie;
    room += tie;
    sum.add(widen((Vec<T>)((Int<T>)w.x[j] & keep)));
    for (int l = 0; l < Lanes<T>::count; ++l) bytes[l * m + j] = static_cast<std::uint8_t>(keep[l] & 1);
  }
}

// The last group of a row, cut by the edge: at most K.
template <class T>
static inline double select_cut(const T* x, int n, int k, std::uint8_t* bytes) {
  double sum = 0;
  for (int j = 0; j < n; ++j) {
    int ahead = 0;
    for (int o = 0; o < n; ++o) ahead += x[o] > x[j] || (x[o] == x[j] && o < j);
    bytes[j] = ahead < k;
    if (ahead < k) sum += static_cast<double>(x[j]);
  }
  return sum;
}

template <class T, class Shape>
static inline void solve_row(const MaskProblem& p, const Shape& shape, std::int64_t row, RowScratch<T>& w,
                             MaskAnswer& answer) {
  constexpr int lanes = Lanes<T>::count;
  const int m = shape.block();
  alignas(64) std::uint8_t bytes[lanes * kMaxBlock];
  T* raw = reinterpret_cast<T*>(w.raw);
  Range<T> range;
  for (std::int64_t col = 0; col < p.cols;) {
    const std::int64_t groups = (p.cols - col) / m;
    const int taken = groups == 0 ? 1 : static_cast<int>(groups < lanes ? groups : lanes);
    const int entries = groups == 0 ? static_cast<int>(p.cols - col) : taken * m;
    const TilePlace at{row / p.rows, row % p.rows, col, 1, entries};
    for (int e = entries; e < lanes * m; ++e) raw[e] = 0;
    copy_tile(p, at, raw, 0);
    for (int e = 0; e < m; ++e) w.raw[e] = range.admit(w.raw[e]);
    if (groups == 0) {
      answer.objective += select_cut(raw, entries, shape.keep(), bytes);
    } else {
      if constexpr (Shape::fixed) {
        __builtin_memcpy(w.x, w.raw, sizeof(Vec<T>) * Shape::block());
        lanes_to_entries<T, Shape::block()>(w.x);
      } else {
        for (int j = 0; j < m; ++j)
          for (int l = 0; l < lanes; ++l) w.x[j][l] = raw[l * m + j];
      }
      Sum<T> sum;
      select_groups<T>(shape, w, bytes, sum);
      double kept[lanes];
      sum.scaled(splat<Vec<T>>(T(1)), kept);
      for (int l = 0; l < taken; ++l) answer.objective += kept[l];
    }
    __builtin_memcpy(p.mask + spot_of(p, at).mask, bytes, static_cast<unsigned>(entries));
    col += entries;
  }
  answer.invalid |= range.invalid(p.absolute);
}

template <class T, class Shape>
static inline void solve_row_range(const MaskProblem& p, const Shape& shape, std::int64_t first, std::int64_t count,
                                   void* scratch, MaskAnswer& answer) {
  for (std::int64_t row = first; row < first + count; ++row)
    solve_row<T>(p, shape, row, *static_cast<RowScratch<T>*>(scratch), answer);
}

static void solve_rows(const MaskProblem& p, std::int64_t first, std::int64_t count, void* scratch,
                       MaskAnswer& answer) {
  const bool single = !solved_in_double(p.dtype);
  if (single && p.block == 4 && p.keep == 2) return solve_row_range<float>(p, FixedShape<4, 2>(), first, count, scratch, answer);
  if (single && p.block == 8 && p.keep == 4) return solve_row_range<float>(p, FixedShape<8, 4>(), first, count, scratch, answer);
  Network network;
  make_network(network, p.block, p.keep);
  const TableShape shape{p.block, p.keep, &network};
  if (single) solve_row_range<float>(p, shape, first, count, scratch, answer);
  else solve_row_range<double>(p, shape, first, count, scratch, answer);
}
