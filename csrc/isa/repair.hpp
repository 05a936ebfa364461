// Completes one tile to optimality by successive shortest augmenting paths, in float64.
// Included only inside `namespace bisparse::BISPARSE_ISA`.

// A tile with its mask (one word of column bits per row) and potentials. Invariant of the repair, complementary slackness:
// kept entries have s >= u + v, dropped ones s <= u + v.
struct Tile {
  int rows, cols, keep;
  bool at_most;  // lines may hold fewer than `keep` (tiles cut by the edge); then u, v >= 0 and a short line has 0
  double s[kMaxBlock][kMaxBlock];
  double u[kMaxBlock], v[kMaxBlock];
  std::uint64_t kept[kMaxBlock];
  int load[kMaxBlock];  // entries kept in each column
};

static inline int lowest_bit(std::uint64_t word) { return __builtin_ctzll(word); }

// K-th largest of x[0..n), which is shuffled (Hoare's selection).
static inline double kth_largest(double* x, int n, int k) {
  int low = 0, high = n - 1;
  const int want = k - 1;
  while (low < high) {
    const double pivot = x[(low + high) / 2];
    int i = low, j = high;
    while (i <= j) {
      while (x[i] > pivot) ++i;
      while (x[j] < pivot) --j;
      if (i <= j) {
        const double swap = x[i];
        x[i++] = x[j], x[j--] = swap;
      }
    }
    if (want <= j) high = j;
    else if (want >= i) low = i;
    else break;
  }
  return x[want];
}

// Of the row's entries tied at its threshold, takes `wanted`: least loaded columns first, then by index rotated by the row,
// so that equal scores spread over the columns instead of piling up on the first.
static inline void take_ties(Tile& t, int row, std::uint64_t ties, int wanted) {
  const int shift = row % t.cols;
  for (; wanted > 0; --wanted) {
    int best = -1;
    for (std::uint64_t rest = ties & ~((std::uint64_t(1) << shift) - 1), pass = 0; pass < 2;
         rest = ties & ((std::uint64_t(1) << shift) - 1), ++pass)
      for (; rest; rest &= rest - 1)
        if (const int j = lowest_bit(rest); best < 0 || t.load[j] < t.load[best]) best = j;
    ties &= ~(std::uint64_t(1) << best);
    t.kept[row] |= std::uint64_t(1) << best;
    ++t.load[best];
  }
}

// Each row keeps its best entries for the given column potentials: dual feasible by construction, columns may be overfull.
static inline void start_rows(Tile& t) {
  std::uint64_t ties[kMaxBlock];
  int wanted[kMaxBlock];
  for (int j = 0; j < t.cols; ++j) t.load[j] = 0;
  for (int i = 0; i < t.rows; ++i) {
    double reduced[kMaxBlock], scratch[kMaxBlock];
    for (int j = 0; j < t.cols; ++j) reduced[j] = scratch[j] = t.s[i][j] - t.v[j];
    const bool roomy = t.at_most && t.cols <= t.keep;
    t.u[i] = roomy ? 0.0 : kth_largest(scratch, t.cols, t.keep);
    std::uint64_t above = 0, level = 0;
    for (int j = 0; j < t.cols; ++j) {
      above |= std::uint64_t(roomy || reduced[j] > t.u[i]) << j;
      level |= std::uint64_t(!roomy && reduced[j] == t.u[i]) << j;
    }
    t.kept[i] = above;
    ties[i] = level;
    wanted[i] = roomy ? 0 : t.keep - __builtin_popcountll(above);
    for (; above; above &= above - 1) ++t.load[lowest_bit(above)];
  }
  for (int i = 0; i < t.rows; ++i) take_ties(t, i, ties[i], wanted[i]);
}

// Shortest paths from the overfull columns, by reduced cost. A column reaches the rows that keep it (the row would drop
// it), a row reaches the columns that it does not keep.
struct Search {
  double to_row[kMaxBlock], to_col[kMaxBlock];
  int row_from[kMaxBlock], col_from[kMaxBlock];  // the column / row before on the path, -1 at a source
  std::uint64_t rows_open, cols_open;
  double length;
  int end_col, end_row;  // exactly one is >= 0
};

static inline void relax_rows(const Tile& t, Search& f, int j) {
  for (std::uint64_t rest = f.rows_open; rest; rest &= rest - 1) {
    const int i = lowest_bit(rest);
    if (!(t.kept[i] >> j & 1)) continue;
    const double cost = t.s[i][j] - t.v[j] - t.u[i], d = f.to_col[j] + (cost > 0 ? cost : 0);
    if (d < f.to_row[i]) f.to_row[i] = d, f.row_from[i] = j;
  }
}

static inline void relax_cols(const Tile& t, Search& f, int i) {
  for (std::uint64_t rest = f.cols_open & ~t.kept[i]; rest; rest &= rest - 1) {
    const int j = lowest_bit(rest);
    const double cost = t.u[i] + t.v[j] - t.s[i][j], d = f.to_row[i] + (cost > 0 ? cost : 0);
    if (d < f.to_col[j]) f.to_col[j] = d, f.col_from[j] = i;
  }
}

static inline int nearest(const double* d, std::uint64_t open) {
  int best = -1;
  for (; open; open &= open - 1)
    if (const int i = lowest_bit(open); best < 0 || d[i] < d[best]) best = i;
  return best;
}

static inline void find_path(const Tile& t, Search& f) {
  const double far = __builtin_inf();
  f.rows_open = ~std::uint64_t(0) >> (64 - t.rows), f.cols_open = ~std::uint64_t(0) >> (64 - t.cols);
  f.length = far, f.end_col = f.end_row = -1;
  for (int i = 0; i < t.rows; ++i) f.to_row[i] = far, f.row_from[i] = -1;
  for (int j = 0; j < t.cols; ++j) f.to_col[j] = t.load[j] > t.keep ? 0.0 : far, f.col_from[j] = -1;
  for (;;) {
    const int j = nearest(f.to_col, f.cols_open), i = nearest(f.to_row, f.rows_open);
    const double dj = j < 0 ? far : f.to_col[j], di = i < 0 ? far : f.to_row[i];
    if (f.length < dj && f.length <= di) return;  // ends in a row that just drops an entry
    if (dj <= di) {
      f.cols_open &= ~(std::uint64_t(1) << j);
      if (t.load[j] < t.keep) {
        f.length = dj, f.end_col = j, f.end_row = -1;
        return;
      }
      relax_rows(t, f, j);
    } else {
      f.rows_open &= ~(std::uint64_t(1) << i);
      if (t.at_most && di + t.u[i] < f.length) f.length = di + t.u[i], f.end_row = i;
      relax_cols(t, f, i);
    }
  }
}

static inline void apply_path(Tile& t, const Search& f) {
  for (int j = 0; j < t.cols; ++j)
    if (f.to_col[j] < f.length) t.v[j] += f.length - f.to_col[j];
  for (int i = 0; i < t.rows; ++i)
    if (f.to_row[i] < f.length) {
      t.u[i] -= f.length - f.to_row[i];
      if (t.at_most && t.u[i] < 0) t.u[i] = 0;  // rounding only
    }
  int i = f.end_row;
  if (f.end_col >= 0) {
    i = f.col_from[f.end_col];
    t.kept[i] |= std::uint64_t(1) << f.end_col;
    ++t.load[f.end_col];
  }
  for (;;) {
    const int j = f.row_from[i];
    t.kept[i] &= ~(std::uint64_t(1) << j);
    if (f.col_from[j] < 0) {
      --t.load[j];
      return;
    }
    i = f.col_from[j];
    t.kept[i] |= std::uint64_t(1) << j;
  }
}

// Solves the tile from its column potentials (0 where it is cut by the edge). Cost: O(M^2) per augmentation, and
// typically no more than two.
static inline void repair(Tile& t) {
  start_rows(t);
  Search f;
  for (int j = 0; j < t.cols; ++j)
    while (t.load[j] > t.keep) {
      find_path(t, f);
      apply_path(t, f);
    }
}

// bound - objective of the tile, by the violations of complementary slackness alone.
static inline double tile_slack(const Tile& t) {
  double slack = 0;
  for (int i = 0; i < t.rows; ++i) {
    for (int j = 0; j < t.cols; ++j) {
      const double excess = t.s[i][j] - t.u[i] - t.v[j];
      if ((excess > 0) != static_cast<bool>(t.kept[i] >> j & 1)) slack += excess > 0 ? excess : -excess;
    }
    slack += t.u[i] * (t.keep - __builtin_popcountll(t.kept[i]));
  }
  for (int j = 0; j < t.cols; ++j) slack += t.v[j] * (t.keep - t.load[j]);
  return slack;
}

static inline double tile_objective(const Tile& t) {
  double sum = 0;
  for (int i = 0; i < t.rows; ++i)
    for (std::uint64_t rest = t.kept[i]; rest; rest &= rest - 1) sum += t.s[i][lowest_bit(rest)];
  return sum;
}
