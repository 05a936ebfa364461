// Transposable masks, chunk by chunk: load, sweep in stages, repair, store.
// Included only inside `namespace bisparse::BISPARSE_ISA`.

template <class T>
struct TileScratch {
  Vec<T> raw[kMaxBlock * kMaxBlock];  // [row][lane][column] as read
  Vec<T> s[kMaxBlock * kMaxBlock];    // [row][column][lane], each lane scaled by a power of two
  Vec<T> u[kMaxBlock], v[kMaxBlock];
  T kept_u[kChunkTiles * kMaxBlock], kept_v[kChunkTiles * kMaxBlock];  // potentials of unfinished tiles
  double objective[kChunkTiles], slack[kChunkTiles];
  std::int32_t queue[2][kChunkTiles];
  Tile tile;
};

// Complete tiles of one chunk, one per lane; idle lanes repeat the first.
template <class T>
struct Group {
  int size;
  const std::int32_t* member;  // indices in the chunk
  TilePlace place[Lanes<T>::count];
  bool side_by_side;  // neighbours in one row of tiles: stores can run across them
  Range<T> range;
};

// Tiles are swept in stages and regrouped in between, so that finished lanes do not idle.
constexpr int kStages = 3;
static inline int stage_rounds(int block, int stage) {
  constexpr int rounds[4][kStages] = {{3, 5, 24}, {4, 6, 22}, {7, 7, 18}, {9, 9, 14}};
  return rounds[block <= 4 ? 0 : block <= 8 ? 1 : block <= 16 ? 2 : 3][stage];
}

template <class T>
static inline void place_group(const MaskProblem& p, std::int64_t first_tile, Group<T>& g) {
  constexpr int last = Lanes<T>::count - 1;
  for (int l = 0; l <= last; ++l) g.place[l] = place_of(p, first_tile + g.member[l < g.size ? l : 0]);
  g.side_by_side = g.size == last + 1 && g.member[last] - g.member[0] == last && g.place[0].row == g.place[last].row &&
                   g.place[0].batch == g.place[last].batch;
}

template <class T, class Shape>
static inline __attribute__((always_inline)) void load_group(const MaskProblem& p, const Shape& shape, Group<T>& g,
                                                             TileScratch<T>& w) {
  const int m = shape.block();
  constexpr int lanes = Lanes<T>::count;
  T* raw = reinterpret_cast<T*>(w.raw);
  for (int l = 0; l < lanes; ++l) copy_tile(p, g.place[l], raw + l * m, lanes * m);
  g.range = Range<T>();
  for (int i = 0; i < m; ++i) {
    if constexpr (Shape::fixed) {
      constexpr int M = Shape::block();
      Vec<T> x[M];
#pragma GCC unroll 64
      for (int j = 0; j < M; ++j) x[j] = w.raw[i * M + j];
      lanes_to_entries<T, M>(x);
#pragma GCC unroll 64
      for (int j = 0; j < M; ++j) w.s[i * M + j] = g.range.admit(x[j]);
    } else {
      for (int j = 0; j < m; ++j) {
        Vec<T> x;
        for (int l = 0; l < lanes; ++l) x[l] = raw[(i * lanes + l) * m + j];
        w.s[i * m + j] = g.range.admit(x);
      }
    }
  }
  const Vec<T> shrink = g.range.shrink();
  for (int e = 0; e < m * m; ++e) w.s[e] *= shrink;
}

// Potentials to start from: those of the last stage, else the caller's columns, else zero.
template <class T>
static inline void load_potentials(const MaskProblem& p, int stage, const Group<T>& g, TileScratch<T>& w) {
  const int m = p.block;
  const Vec<T> shrink = g.range.shrink();
  const T* warm = static_cast<const T*>(p.warm_columns);
  for (int e = 0; e < m; ++e) w.u[e] = w.v[e] = Vec<T>{};
  if (stage == 0 && !warm) return;
  for (int l = 0; l < g.size; ++l) {
    const TilePlace& at = g.place[l];
    const std::int64_t slot = stage == 0 ? (at.batch * p.tile_rows() + at.row / m) * p.cols + at.col
                                         : static_cast<std::int64_t>(g.member[l]) * m;
    for (int e = 0; e < m; ++e) {
      w.v[e][l] = stage == 0 ? warm[slot + e] * shrink[l] : w.kept_v[slot + e];
      if (stage > 0) w.u[e][l] = w.kept_u[slot + e];
    }
  }
}

static inline std::uint8_t* mask_at(const MaskProblem& p, const TilePlace& at) {
  return p.mask + (at.batch * p.rows + at.row) * p.cols + at.col;
}

template <class T, class RowDual, class ColumnDual>
static inline void store_duals(const MaskProblem& p, const TilePlace& at, RowDual u, ColumnDual v) {
  if (T* out = static_cast<T*>(p.row_duals))
    for (int i = 0; i < at.rows; ++i)
      out[(at.batch * p.rows + at.row + i) * p.tile_cols() + at.col / p.block] = static_cast<T>(u(i));
  if (T* out = static_cast<T*>(p.column_duals))
    for (int j = 0; j < at.cols; ++j)
      out[(at.batch * p.tile_rows() + at.row / p.block) * p.cols + at.col + j] = static_cast<T>(v(j));
}

// Writes row i of the masks [s - v > u] of the lanes in `wanted` and adds up what they keep.
template <class T, class Shape>
static inline __attribute__((always_inline)) void store_row(const MaskProblem& p, const Shape& shape, const Group<T>& g,
                                                            const TileScratch<T>& w, Int<T> wanted, int i, Sum<T>& sum) {
  const int m = shape.block();
  alignas(64) std::uint8_t bytes[Lanes<T>::count * kMaxBlock];  // [lane][column]
  if constexpr (Shape::fixed && sizeof(T) == 4) {
    constexpr int words = Shape::block() / 4;  // four columns to a lane's word
    Int<T> word[words];
#pragma GCC unroll 16
    for (int q = 0; q < words; ++q) {
      word[q] = Int<T>{};
#pragma GCC unroll 4
      for (int b = 0; b < 4; ++b) {
        const Vec<T> s = w.s[i * m + q * 4 + b];
        const Int<T> keep = (s - w.v[q * 4 + b]) > w.u[i];
        word[q] |= keep & (1 << 8 * b);
        sum.add((Vec<T>)((Int<T>)s & keep));
      }
    }
    Vec<T> x[words];
    __builtin_memcpy(x, word, sizeof word);
    Vec<T> y[words];
#pragma GCC unroll 8
    for (int half = 1; half < words; half *= 2) {  // [word][lane] to [lane][word]
#pragma GCC unroll 16
      for (int k = 0; k < words / 2; ++k) zip<T>(x[k], x[k + words / 2], y[2 * k], y[2 * k + 1]);
      __builtin_memcpy(x, y, sizeof y);
    }
    if (g.side_by_side) {
      __builtin_memcpy(mask_at(p, g.place[0]) + i * p.cols, x, sizeof x);
      return;
    }
    __builtin_memcpy(bytes, x, sizeof x);
  } else {
    for (int j = 0; j < m; ++j) {
      const Vec<T> s = w.s[i * m + j];
      const Int<T> keep = (s - w.v[j]) > w.u[i];
      sum.add((Vec<T>)((Int<T>)s & keep));
      for (int l = 0; l < g.size; ++l) bytes[l * m + j] = keep[l] != 0;
    }
  }
  for (int l = 0; l < g.size; ++l)
    if (wanted[l]) __builtin_memcpy(mask_at(p, g.place[l]) + i * p.cols, bytes + l * m, static_cast<unsigned>(m));
}

template <class T, class Shape>
static inline __attribute__((always_inline)) void store_proved(const MaskProblem& p, const Shape& shape,
                                                               const Group<T>& g, TileScratch<T>& w, Int<T> proved) {
  Sum<T> sum;
  for (int i = 0; i < shape.block(); ++i) store_row(p, shape, g, w, proved, i, sum);
  const Vec<T> restore = g.range.restore();
  for (int l = 0; l < g.size; ++l) {
    if (!proved[l]) continue;
    w.objective[g.member[l]] = sum.lane(l) * static_cast<double>(restore[l]);
    w.slack[g.member[l]] = 0;
    if (p.row_duals || p.column_duals)
      store_duals<T>(p, g.place[l], [&](int i) { return w.u[i][l] * restore[l]; },
                     [&](int j) { return w.v[j][l] * restore[l]; });
  }
}

template <class T>
static inline void store_tile(const MaskProblem& p, const TilePlace& at, TileScratch<T>& w, int member, double restore) {
  const Tile& t = w.tile;
  std::uint8_t* mask = mask_at(p, at);
  for (int i = 0; i < t.rows; ++i)
    for (int j = 0; j < t.cols; ++j) mask[i * p.cols + j] = t.kept[i] >> j & 1;
  w.objective[member] = tile_objective(t) * restore;
  w.slack[member] = tile_slack(t) * restore;
  store_duals<T>(p, at, [&](int i) { return t.u[i] * restore; }, [&](int j) { return t.v[j] * restore; });
}

template <class T>
static inline void repair_lane(const MaskProblem& p, const Group<T>& g, TileScratch<T>& w, int l) {
  Tile& t = w.tile;
  const int m = p.block;
  t.rows = t.cols = m, t.keep = p.keep, t.at_most = false;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < m; ++j) t.s[i][j] = w.s[i * m + j][l];
  for (int j = 0; j < m; ++j) t.v[j] = w.v[j][l];
  repair(t);
  store_tile(p, g.place[l], w, g.member[l], static_cast<double>(g.range.restore()[l]));
}

// A tile cut by the edge: at most `keep` per line. Returns false on invalid scores.
template <class T>
static inline bool solve_cut_tile(const MaskProblem& p, const TilePlace& at, TileScratch<T>& w, int member) {
  Tile& t = w.tile;
  T* raw = reinterpret_cast<T*>(w.raw);
  copy_tile(p, at, raw, p.block);
  t.rows = at.rows, t.cols = at.cols, t.keep = p.keep, t.at_most = true;
  Range<double> range;
  for (int i = 0; i < t.rows; ++i)
    for (int j = 0; j < t.cols; ++j)
      t.s[i][j] = range.admit(splat<Vec<double>>(static_cast<double>(raw[i * p.block + j])))[0];
  if (range.invalid(p.absolute)) return false;
  const double shrink = range.shrink()[0];
  for (int i = 0; i < t.rows; ++i)
    for (int j = 0; j < t.cols; ++j) t.s[i][j] *= shrink;
  for (int j = 0; j < t.cols; ++j) t.v[j] = 0;
  repair(t);
  store_tile(p, at, w, member, range.restore()[0]);
  return true;
}

// One stage for one group. Unfinished tiles go to `next`; tied ones, and all in the last stage, are repaired at once.
template <class T, class Shape>
static inline void solve_group(const MaskProblem& p, const Shape& shape, int stage, Group<T>& g, TileScratch<T>& w,
                               std::int32_t* next, int& next_size, MaskAnswer& answer) {
  const int m = shape.block();
  load_group(p, shape, g, w);
  if (g.range.invalid(p.absolute)) {
    answer.invalid = true;
    return;
  }
  load_potentials(p, stage, g, w);
  const Progress<T> state = sweep<T>(shape, w.s, w.u, w.v, stage_rounds(m, stage), stage == 0);
  int rounds = state.rounds;
  for (int before = 0; before < stage; ++before) rounds += stage_rounds(m, before);
  if (rounds > answer.rounds) answer.rounds = rounds;
  store_proved(p, shape, g, w, state.proved);
  for (int l = 0; l < g.size; ++l) {
    if (state.proved[l]) continue;
    if (state.tied[l] || stage + 1 == kStages) {
      repair_lane(p, g, w, l);
      ++answer.repaired;
    } else {
      const int member = g.member[l];
      for (int e = 0; e < m; ++e) w.kept_u[member * m + e] = w.u[e][l], w.kept_v[member * m + e] = w.v[e][l];
      next[next_size++] = member;
    }
  }
}

template <class T, class Shape>
static inline void solve_chunk(const MaskProblem& p, const Shape& shape, std::int64_t first_tile, std::int64_t count,
                               TileScratch<T>& w, MaskAnswer& answer) {
  int size = 0;
  for (int member = 0; member < count; ++member) {
    const TilePlace at = place_of(p, first_tile + member);
    if (at.rows == p.block && at.cols == p.block) w.queue[0][size++] = member;
    else if (!solve_cut_tile(p, at, w, member)) answer.invalid = true;
  }
  for (int stage = 0; stage < kStages && size > 0 && !answer.invalid; ++stage) {
    int next_size = 0;
    Group<T> g;
    for (int done = 0; done < size && !answer.invalid; done += g.size) {
      g.member = w.queue[stage & 1] + done;
      g.size = least(Lanes<T>::count, size - done);
      place_group(p, first_tile, g);
      solve_group(p, shape, stage, g, w, w.queue[~stage & 1], next_size, answer);
    }
    size = next_size;
  }
  if (answer.invalid) return;
  for (int member = 0; member < count; ++member)
    answer.objective += w.objective[member], answer.slack += w.slack[member];
}

template <int M, int K>
static void solve_fixed(const MaskProblem& p, std::int64_t first, std::int64_t count, TileScratch<float>& w,
                        MaskAnswer& answer) {
  solve_chunk<float>(p, FixedShape<M, K>(), first, count, w, answer);
}

template <class T>
static void solve_table(const MaskProblem& p, std::int64_t first, std::int64_t count, TileScratch<T>& w,
                        MaskAnswer& answer) {
  Network network;
  make_network(network, p.block, p.keep);
  solve_chunk<T>(p, TableShape{p.block, p.keep, &network}, first, count, w, answer);
}

static void solve_tiles(const MaskProblem& p, std::int64_t first, std::int64_t count, void* scratch,
                        MaskAnswer& answer) {
  if (solved_in_double(p.dtype)) return solve_table(p, first, count, *static_cast<TileScratch<double>*>(scratch), answer);
  TileScratch<float>& w = *static_cast<TileScratch<float>*>(scratch);
  switch (p.block * 100 + p.keep) {
    case 401: return solve_fixed<4, 1>(p, first, count, w, answer);
    case 402: return solve_fixed<4, 2>(p, first, count, w, answer);
    case 802: return solve_fixed<8, 2>(p, first, count, w, answer);
    case 804: return solve_fixed<8, 4>(p, first, count, w, answer);
    case 1608: return solve_fixed<16, 8>(p, first, count, w, answer);
    case 3216: return solve_fixed<32, 16>(p, first, count, w, answer);
    default: return solve_table(p, first, count, w, answer);
  }
}
