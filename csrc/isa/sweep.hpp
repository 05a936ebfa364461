// Alternating midpoints with clamped over-relaxation: a group of tiles, one per lane.
// Included only inside `namespace bisparse::BISPARSE_ISA`.
//
// Tile scores s, potentials u (rows) and v (columns). A half sweep moves every u_i between the K-th and the (K+1)-th
// largest of s_i: - v, so that [s_ij - v_j > u_i] keeps K entries of each row; the other half does the same for columns.
// When both hold strictly at once, the mask is optimal and (u, v) proves it, in exact arithmetic: rounding is monotone, so
// fl(s - v) > u implies s - v > u for a representable u, and likewise below.

// The shape of the problem, known to the compiler ...
template <int M, int K>
struct FixedShape {
  static constexpr bool fixed = true;
  static constexpr int block() { return M; }
  static constexpr int keep() { return K; }
  template <class V>
  inline Straddle<V> straddle(V* x) const {
    return BISPARSE_ISA::straddle<M, K>(x);
  }
};

// ... or only when it runs.
struct TableShape {
  static constexpr bool fixed = false;
  int m, k;
  const Network* network;
  inline int block() const { return m; }
  inline int keep() const { return k; }
  template <class V>
  inline Straddle<V> straddle(V* x) const {
    return BISPARSE_ISA::straddle(*network, k, x);
  }
};

template <class T>
struct HalfSweep {
  Vec<T> old_slack, new_slack;  // least distance of the old / new potentials from the order statistics that they separate
  Vec<T> moved;                 // largest change of a potential, if watched
  Int<T> ties;                  // minus the number of lines whose two order statistics are equal, if watched
};

template <class T, class Shape>
static inline __attribute__((always_inline)) Straddle<Vec<T>> straddle_line(const Shape& shape, const Vec<T>* s,
                                                                             int entry_step, const Vec<T>* across) {
  if constexpr (Shape::fixed) {
    constexpr int M = Shape::block();
    Vec<T> x[M];
#pragma GCC unroll 64
    for (int e = 0; e < M; ++e) x[e] = s[e * entry_step] - across[e];
    return shape.straddle(x);
  } else {
    Vec<T> x[kMaxBlock];
    for (int e = 0; e < shape.block(); ++e) x[e] = s[e * entry_step] - across[e];
    return shape.straddle(x);
  }
}

// For each line: next[line] = a point strictly between the two order statistics of the line's scores less `across`.
// Small blocks take the midpoint; larger ones overshoot it by 60%, clamped to the middle three quarters of the interval
// (8:16t: 6.2 sweeps instead of 9.5; 16:32t: 9.8 instead of 18).
template <class T, class Shape>
static inline __attribute__((always_inline)) HalfSweep<T> half_sweep(const Shape& shape, const Vec<T>* s, int line_step,
                                                                      int entry_step, const Vec<T>* across,
                                                                      const Vec<T>* own, Vec<T>* next, bool relax, bool watch) {
  HalfSweep<T> seen{splat<Vec<T>>(T(1)), splat<Vec<T>>(T(1)), Vec<T>{}, Int<T>{}};
  for (int line = 0; line < shape.block(); ++line) {
    const Straddle<Vec<T>> at = straddle_line<T>(shape, s + line * line_step, entry_step, across);
    const Vec<T> spread = at.above - at.below, old = own[line];
    Vec<T> point = at.below + T(0.5) * spread;
    if (relax) {
      const Vec<T> margin = T(0.125) * spread;
      point = min(max(old + T(1.6) * (point - old), at.below + margin), at.above - margin);
    }
    next[line] = point;
    if (watch) {
      seen.moved = max(seen.moved, max(point - old, old - point));
      seen.ties += spread <= T(0);
    }
    seen.old_slack = min(seen.old_slack, min(at.above - old, old - at.below));
    seen.new_slack = min(seen.new_slack, min(at.above - point, point - at.below));
  }
  return seen;
}

template <class V, class I>
static inline void advance(V* own, const V* next, I held, int n) {
  for (int line = 0; line < n; ++line) own[line] = held ? own[line] : next[line];
}

template <class T>
struct Progress {
  Int<T> proved = {};  // lanes whose mask is proved optimal
  Int<T> tied = {};    // lanes whose ties are left to the completion
  int rounds = 0;
};

// Sweeps until every lane is proved or tied, at most `rounds` times. A lane counts as tied when a quarter of its columns
// are in two sweeps running (many zeros), or when some are and nothing moves any more (coarsely rounded scores). A lane that is done is frozen, so what happens to a
// tile never depends on its neighbours; `idle` lanes hold none. `fresh`: u is not set yet, the first sweep takes plain midpoints.
template <class T, class Shape>
static inline __attribute__((always_inline)) Progress<T> sweep(const Shape& shape, const Vec<T>* s, Vec<T>* u, Vec<T>* v,
                                                               int rounds, bool fresh, Int<T> idle) {
  const int m = shape.block();
  Progress<T> state;
  state.tied = idle;
  Vec<T> next[kMaxBlock];
  Int<T> columns_hold = {}, many_before = {};
  for (int t = 0; t < rounds; ++t) {
    const bool relax = m >= 8 && !(fresh && t == 0);
    state.rounds = t + 1;
    const HalfSweep<T> by_row = half_sweep<T>(shape, s, m, 1, v, u, next, relax, false);
    const Int<T> row_proof = columns_hold & (by_row.old_slack > T(0));
    state.proved |= row_proof & ~state.tied;
    advance(u, next, state.proved | state.tied, m);
    if (all_set(state.proved | state.tied)) break;

    const HalfSweep<T> by_column = half_sweep<T>(shape, s, 1, m, u, v, next, relax, true);
    const Int<T> column_proof = (by_row.new_slack > T(0)) & (by_column.old_slack > T(0)) & ~row_proof;
    state.proved |= column_proof & ~state.tied;
    columns_hold = by_column.new_slack > T(0);
    const Int<T> many = by_column.ties * 4 < -m;
    const Int<T> still = (by_column.ties < 0) & (by_column.moved < T(16) * Lanes<T>::rounding);
    const Int<T> held = state.proved | state.tied;
    state.tied |= ((many & many_before) | still) & ~state.proved;
    many_before = many;
    advance(v, next, held, m);
    if (all_set(state.proved | state.tied)) break;
  }
  state.tied &= ~idle;
  return state;
}
