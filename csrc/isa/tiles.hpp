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
  Spot spot[kChunkTiles];
  Tile tile;
  TieProblem ties;
};

// Complete tiles of one chunk, one per lane; idle lanes repeat the first.
template <class T>
struct Group {
  int size;
  const std::int32_t* member;  // indices in the chunk
  Spot spot[Lanes<T>::count];
  bool side_by_side;           // neighbours in one row of tiles: loads and stores can run across them
  Range<T> range;
};

// Tiles are swept in stages and regrouped in between, so that finished lanes do not idle.
// From a warm start most tiles are proved at once, so the first stage is short.
constexpr int kStages = 3;
static inline int stage_rounds(const MaskProblem& p, int stage) {
  constexpr int cold[4][kStages] = {{3, 5, 24}, {4, 6, 22}, {7, 7, 18}, {9, 9, 14}};
  constexpr int warm[4][kStages] = {{1, 4, 27}, {1, 5, 26}, {2, 8, 22}, {4, 9, 19}};
  return (p.warm_columns ? warm : cold)[p.block <= 4 ? 0 : p.block <= 8 ? 1 : p.block <= 16 ? 2 : 3][stage];
}

template <class T>
static inline void locate_group(const MaskProblem& p, Group<T>& g, const TileScratch<T>& w) {
  constexpr int last = Lanes<T>::count - 1;
  const int final = g.member[g.size - 1], reach = last * p.block;
  g.side_by_side = g.size == last + 1 && final - g.member[0] == last && w.spot[final].mask - w.spot[g.member[0]].mask == reach;
  for (int l = 0; l <= last; ++l) g.spot[l] = w.spot[g.member[l < g.size ? l : 0]];
}

// [lane][column] of one row of the tiles to [column][lane].
template <class T, class Shape>
static inline __attribute__((always_inline)) void transpose_row(const Shape& shape, const T* raw, Vec<T>* s, Range<T>& range) {
  constexpr int lanes = Lanes<T>::count;
  if constexpr (Shape::fixed) {
    constexpr int M = Shape::block();
    Vec<T> x[M];
    __builtin_memcpy(x, raw, sizeof x);
    lanes_to_entries<T, M>(x);
#pragma GCC unroll 64
    for (int j = 0; j < M; ++j) s[j] = range.admit(x[j]);
  } else {
    const int m = shape.block();
    for (int j = 0; j < m; ++j) {
      Vec<T> x;
      for (int l = 0; l < lanes; ++l) x[l] = raw[l * m + j];
      s[j] = range.admit(x);
    }
  }
}

template <class T, class Shape>
static inline __attribute__((always_inline)) void load_group(const MaskProblem& p, const Shape& shape, Group<T>& g,
                                                             TileScratch<T>& w) {
  const int m = shape.block();
  constexpr int lanes = Lanes<T>::count;
  g.range = Range<T>();
  if (g.side_by_side && p.col_stride == 1 && p.dtype == (sizeof(T) == 4 ? Dtype::f32 : Dtype::f64)) {
    const T* from = static_cast<const T*>(p.scores) + g.spot[0].scores;
    for (int i = 0; i < m; ++i) transpose_row(shape, from + i * p.row_stride, w.s + i * m, g.range);
  } else {
    T* raw = reinterpret_cast<T*>(w.raw);
    with_source<T>(p, 0, [&](const auto* scores) {
      for (int l = 0; l < lanes; ++l)
        copy_entries(scores + g.spot[l].scores, p.row_stride, p.col_stride, m, m, raw + l * m, lanes * m);
    });
    for (int i = 0; i < m; ++i) transpose_row(shape, raw + i * lanes * m, w.s + i * m, g.range);
  }
  const Vec<T> shrink = g.range.shrink();
  for (int e = 0; e < m * m; ++e) w.s[e] *= shrink;
}

// A start that dwarfs the scores (below 4) would drown them in the rounding of s - v: zero takes its place.
template <class T>
static inline Vec<T> usable_start(Vec<T> v) {
  return (Vec<T>)((Int<T>)v & ((v <= splat<Vec<T>>(T(4))) & (v >= splat<Vec<T>>(T(-4)))));
}

// Potentials to start from: those of the last stage, else the caller's columns, else zero.
template <class T, class Shape>
static inline __attribute__((always_inline)) void load_potentials(const MaskProblem& p, const Shape& shape, int stage, const Group<T>& g,
                                   TileScratch<T>& w) {
  const int m = shape.block();
  constexpr int lanes = Lanes<T>::count;
  for (int e = 0; e < m; ++e) w.u[e] = w.v[e] = Vec<T>{};
  T *u = scalars(w.u), *v = scalars(w.v);
  if (stage > 0) {
    for (int l = 0; l < g.size; ++l)
      for (int e = 0; e < m; ++e) {
        u[e * lanes + l] = w.kept_u[g.member[l] * m + e];
        v[e * lanes + l] = w.kept_v[g.member[l] * m + e];
      }
  } else if (const T* warm = static_cast<const T*>(p.warm_columns)) {
    if constexpr (Shape::fixed) {
      if (g.side_by_side) {  // their potentials are side by side as well
        __builtin_memcpy(w.v, warm + g.spot[0].column_dual, sizeof(Vec<T>) * Shape::block());
        lanes_to_entries<T, Shape::block()>(w.v);
      }
    }
    if (!Shape::fixed || !g.side_by_side)
      for (int l = 0; l < g.size; ++l)
        for (int e = 0; e < m; ++e) v[e * lanes + l] = warm[g.spot[l].column_dual + e];
    const Vec<T> shrink = g.range.shrink();
    for (int e = 0; e < m; ++e) w.v[e] = usable_start<T>(w.v[e] * shrink);
  }
}

template <class T, class RowDual, class ColumnDual>
static inline void store_duals(const MaskProblem& p, const Spot& at, int rows, int cols, RowDual u, ColumnDual v) {
  if (T* out = static_cast<T*>(p.row_duals))
    for (int i = 0; i < rows; ++i) out[at.row_dual + i * p.tile_cols()] = static_cast<T>(u(i));
  if (T* out = static_cast<T*>(p.column_duals))
    for (int j = 0; j < cols; ++j) out[at.column_dual + j] = static_cast<T>(v(j));
}

// The same for lane l of the group.
template <class T>
static inline void store_lane_duals(const MaskProblem& p, const Group<T>& g, TileScratch<T>& w, int l) {
  const T restore = g.range.restore()[l], *u = scalars(w.u) + l, *v = scalars(w.v) + l;
  store_duals<T>(p, g.spot[l], p.block, p.block, [&](int i) { return u[i * Lanes<T>::count] * restore; },
                 [&](int j) { return v[j * Lanes<T>::count] * restore; });
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
        sum.add(widen((Vec<T>)((Int<T>)s & keep)));
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
      __builtin_memcpy(p.mask + g.spot[0].mask + i * p.cols, x, sizeof x);
      return;
    }
    __builtin_memcpy(bytes, x, sizeof x);
  } else {
    for (int j = 0; j < m; ++j) {
      const Vec<T> s = w.s[i * m + j];
      const Int<T> keep = (s - w.v[j]) > w.u[i];
      sum.add(widen((Vec<T>)((Int<T>)s & keep)));
      for (int l = 0; l < g.size; ++l) bytes[l * m + j] = keep[l] != 0;
    }
  }
  for (int l = 0; l < g.size; ++l)
    if (wanted[l]) __builtin_memcpy(p.mask + g.spot[l].mask + i * p.cols, bytes + l * m, static_cast<unsigned>(m));
}

template <class T, class Shape>
static inline __attribute__((always_inline)) void store_proved(const MaskProblem& p, const Shape& shape,
                                                               const Group<T>& g, TileScratch<T>& w, Int<T> proved) {
  Sum<T> sum;
  for (int i = 0; i < shape.block(); ++i) store_row(p, shape, g, w, proved, i, sum);
  const Vec<T> restore = g.range.restore();
  alignas(64) double kept[Lanes<T>::count];
  sum.scaled(restore, kept);
  if (g.side_by_side) __builtin_memcpy(w.objective + g.member[0], kept, sizeof kept);
  else
    for (int l = 0; l < g.size; ++l)
      if (proved[l]) w.objective[g.member[l]] = kept[l];
  if (!p.row_duals && !p.column_duals) return;
  for (int l = 0; l < g.size; ++l)
    if (proved[l]) store_lane_duals(p, g, w, l);
}

// Bits to bytes, eight columns at a time.
static inline void store_bits(std::uint8_t* to, std::uint64_t bits, int columns) {
  for (int j = 0; j < columns; j += 8, bits >>= 8) {
    const std::uint64_t spread = ((bits & 0xff) * 0x0101010101010101ull) & 0x8040201008040201ull;
    const std::uint64_t bytes = ((spread + 0x7f7f7f7f7f7f7f7full) >> 7) & 0x0101010101010101ull;
    __builtin_memcpy(to + j, &bytes, static_cast<unsigned>(least(8, columns - j)));
  }
}

template <class T>
static inline void store_tile(const MaskProblem& p, const Spot& at, TileScratch<T>& w, int member, double restore) {
  const Tile& t = w.tile;
  for (int i = 0; i < t.rows; ++i) store_bits(p.mask + at.mask + i * p.cols, t.kept[i], t.cols);
  w.objective[member] = tile_objective(t) * restore;
  w.slack[member] = tile_slack(t) * restore;
  store_duals<T>(p, at, t.rows, t.cols, [&](int i) { return t.u[i] * restore; }, [&](int j) { return t.v[j] * restore; });
}

template <class T>
static inline void repair_lane(const MaskProblem& p, const Group<T>& g, TileScratch<T>& w, int l) {
  Tile& t = w.tile;
  const int m = p.block;
  const T *s = scalars(w.s) + l, *v = scalars(w.v) + l;
  t.rows = t.cols = m, t.keep = p.keep, t.at_most = false;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < m; ++j) t.s[i][j] = s[(i * m + j) * Lanes<T>::count];
  for (int j = 0; j < m; ++j) t.v[j] = v[j * Lanes<T>::count];
  repair(t);
  store_tile(p, g.spot[l], w, g.member[l], static_cast<double>(g.range.restore()[l]));
}

// The ties of every lane at its potentials, up to rounding, as bit words per row. `w.u` is brought to the thresholds of `w.v` first.
template <class T>
struct TieWords {
  Int<T> above[kMaxBlock], level[kMaxBlock];
};

template <class T, class Shape>
static inline void find_ties(const Shape& shape, TileScratch<T>& w, Int<T> tied, TieWords<T>& words) {
  const int m = shape.block();
  Vec<T> next[kMaxBlock];
  half_sweep<T>(shape, w.s, m, 1, w.v, w.u, next, false, false);
  advance(w.u, next, ~tied, m);
  for (int i = 0; i < m; ++i) {
    words.above[i] = words.level[i] = Int<T>{};
    for (int j = 0; j < m; ++j) {
      const Vec<T> reduced = w.s[i * m + j] - w.v[j];
      const Int<T> place = Int<T>{} + static_cast<typename Lanes<T>::Bits>(bit(j));
      words.above[i] |= (reduced > w.u[i] + Lanes<T>::rounding) & place;
      words.level[i] |= (reduced >= w.u[i] - Lanes<T>::rounding) & place;
    }
  }
}

// Decides the ties of the lanes in `stuck`: what is kept takes the place of `words.above`. Returns the lanes that could be
// completed.
template <class T>
static inline Int<T> decide_ties(const MaskProblem& p, TieProblem& t, Int<T> stuck, TieWords<T>& words) {
  t.size = p.block, t.keep = p.keep;
  const std::uint64_t columns = ~std::uint64_t(0) >> (64 - p.block);
  constexpr int lanes = Lanes<T>::count;
  auto *above = scalars(words.above), *level = scalars(words.level);
  Int<T> completed = {};
  for (int l = 0; l < lanes; ++l) {
    if (!stuck[l]) continue;
    for (int i = 0; i < t.size; ++i) {
      t.above[i] = static_cast<std::uint64_t>(above[i * lanes + l]) & columns;
      t.level[i] = static_cast<std::uint64_t>(level[i * lanes + l]) & columns & ~t.above[i];
    }
    if (!complete_ties(t)) continue;
    completed[l] = -1;
    for (int i = 0; i < t.size; ++i)
      above[i * lanes + l] = static_cast<typename Lanes<T>::Bits>(t.above[i] | t.taken[i]);
  }
  return completed;
}

// Stores the completed lanes whose slack, computed in float64, is at most 1e-8 of the objective (ties are ties up to the
// rounding of s - v); the others lose their flag.
template <class T>
static inline void store_completed(const MaskProblem& p, const Group<T>& g, TileScratch<T>& w, TieWords<T>& words,
                                   Int<T>& completed) {
  const int m = p.block;
  const auto* above = scalars(words.above);
  Sum<T> objective, slack;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < m; ++j) {
      const Vec<T> s = w.s[i * m + j];
      const Int<T> keep = (words.above[i] & static_cast<typename Lanes<T>::Bits>(bit(j))) != 0;
      const Wide<T> score = widen(s), u = widen(w.u[i]), v = widen(w.v[j]);
      Wide<T> wrong = widen((Vec<T>)((Int<T>)splat<Vec<T>>(T(1)) | (keep & ~Lanes<T>::magnitude)));  // -1 where kept
      for (int h = 0; h < Wide<T>::parts; ++h)
        wrong.part[h] = max(wrong.part[h] * (score.part[h] - u.part[h] - v.part[h]), Vec<double>{});
      slack.add(wrong);
      objective.add(widen((Vec<T>)((Int<T>)s & keep)));
    }
  double kept[Lanes<T>::count], lost[Lanes<T>::count];
  const Vec<T> restore = g.range.restore();
  objective.scaled(restore, kept);
  slack.scaled(restore, lost);
  for (int l = 0; l < g.size; ++l) {
    completed[l] &= -static_cast<typename Lanes<T>::Bits>(lost[l] <= 1e-8 * kept[l]);
    if (!completed[l]) continue;
    for (int i = 0; i < m; ++i)
      store_bits(p.mask + g.spot[l].mask + i * p.cols, static_cast<std::uint64_t>(above[i * Lanes<T>::count + l]), m);
    w.objective[g.member[l]] = kept[l];
    w.slack[g.member[l]] = lost[l];
    store_lane_duals(p, g, w, l);
  }
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
  store_tile(p, spot_of(p, at), w, member, range.restore()[0]);
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
  load_potentials(p, shape, stage, g, w);
  Int<T> idle = {};
  for (int l = g.size; l < Lanes<T>::count; ++l) idle[l] = -1;
  const Progress<T> state = sweep<T>(shape, w.s, w.u, w.v, stage_rounds(p, stage), stage == 0, idle);
  int rounds = state.rounds;
  for (int before = 0; before < stage; ++before) rounds += stage_rounds(p, before);
  if (rounds > answer.rounds) answer.rounds = rounds;
  if (any_set(state.proved)) store_proved(p, shape, g, w, state.proved);
  if (all_set(state.proved | idle)) return;
  const Int<T> stuck = (stage + 1 == kStages ? ~idle : state.tied) & ~state.proved;
  Int<T> completed = {};
  if (m <= static_cast<int>(8 * sizeof(T)) && any_set(stuck)) {
    TieWords<T> words;
    find_ties(shape, w, stuck, words);
    completed = decide_ties(p, w.ties, stuck, words);
    store_completed(p, g, w, words, completed);
  }
  const T *u = scalars(w.u), *v = scalars(w.v);
  for (int l = 0; l < g.size; ++l) {
    const int member = g.member[l];
    if (state.proved[l] || completed[l]) continue;
    if (stuck[l]) {
      repair_lane(p, g, w, l);
      ++answer.repaired;
    } else {
      for (int e = 0; e < m; ++e) {
        w.kept_u[member * m + e] = u[e * Lanes<T>::count + l];
        w.kept_v[member * m + e] = v[e * Lanes<T>::count + l];
      }
      next[next_size++] = member;
    }
  }
}

// Eight running sums hide the latency of addition; their order is fixed, so the bits are.
static inline double sum_in_order(const double* x, std::int64_t count) {
  double part[8] = {};
  for (std::int64_t e = 0; e < count; ++e) part[e & 7] += x[e];
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

// Solves the tiles cut by the edge and queues the complete ones; returns how many those are.
template <class T>
static inline int start_chunk(const MaskProblem& p, std::int64_t first_tile, std::int64_t count, TileScratch<T>& w,
                              MaskAnswer& answer) {
  int size = 0;
  for (int member = 0; member < count; ++member) w.slack[member] = 0;
  for (int member = 0; member < count;) {  // the tiles of one row of tiles, left to right
    const TilePlace at = place_of(p, first_tile + member);
    Spot spot = spot_of(p, at);
    std::int64_t col = at.col;
    for (; member < count && col < p.cols; ++member, col += p.block) {
      if (at.rows < p.block || col + p.block > p.cols) {
        if (!solve_cut_tile(p, place_of(p, first_tile + member), w, member)) answer.invalid = true;
        continue;
      }
      w.spot[member] = spot;
      w.queue[0][size++] = member;
      spot.scores += p.block * p.col_stride, spot.mask += p.block, ++spot.row_dual, spot.column_dual += p.block;
    }
  }
  return size;
}

template <class T, class Shape>
static inline void solve_chunk(const MaskProblem& p, const Shape& shape, std::int64_t first_tile, std::int64_t count,
                               TileScratch<T>& w, MaskAnswer& answer) {
  int size = start_chunk(p, first_tile, count, w, answer);
  Group<T> g;
  for (int stage = 0; stage < kStages && size > 0 && !answer.invalid; ++stage) {
    int next_size = 0;
    for (int done = 0; done < size && !answer.invalid; done += g.size) {
      g.member = w.queue[stage & 1] + done;
      g.size = least(Lanes<T>::count, size - done);
      locate_group(p, g, w);
      solve_group(p, shape, stage, g, w, w.queue[~stage & 1], next_size, answer);
    }
    size = next_size;
  }
  if (answer.invalid) return;
  answer.objective += sum_in_order(w.objective, count);
  answer.slack += sum_in_order(w.slack, count);
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
