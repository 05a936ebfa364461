// Vectors in the compiler's own notation, so that one source serves every instruction set. Included only inside `namespace
// bisparse::BISPARSE_ISA`; kBytes is the width of a register. No std templates: see isa/products/steps.hpp.

static inline std::int64_t at_most(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

template <class T, int Count>
struct VectorOf {
  typedef T type __attribute__((vector_size(Count * sizeof(T))));
};
template <class T, int Count>
using Vec = typename VectorOf<T, Count>::type;

// Elements of T that are handled together where `lanes` lie side by side.
template <class T>
constexpr int width_of(int lanes) {
  return lanes * static_cast<int>(sizeof(T)) < kBytes ? lanes : kBytes / static_cast<int>(sizeof(T));
}

template <class T, int W>
static inline Vec<T, W> load(const T* from) {
  Vec<T, W> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class T, int W>
static inline void store(T* to, Vec<T, W> value) {
  __builtin_memcpy(to, &value, sizeof value);
}

template <int... I>
struct Lanes {};
template <int N, int... I>
struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I>
struct CountTo<0, I...> {
  typedef Lanes<I...> type;
};
template <int N>
using AllLanes = typename CountTo<N>::type;

// Lanes without bit D from `a`, the others from `b`; in `swapped` each lane comes from its partner across that bit.
template <int D, int W, class V, int... I>
static inline V joined(V a, V b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I & D ? W + I : I)...);
}
template <int D, int W, class V, int... I>
static inline V swapped(V a, V b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I & D ? W + (I ^ D) : I ^ D)...);
}
template <int D, int W, class V, int... I>
static inline V first_of_both(V a, V b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I & D ? W + (I ^ D) : I)...);
}
template <int D, int W, class V, int... I>
static inline V second_of_both(V a, V b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I & D ? W + I : I ^ D)...);
}

// W vectors of W lanes as the rows of a square: rows become columns.
template <int W, int D, class V>
static inline void transpose(V* v) {
  if constexpr (D > 0) {
    constexpr AllLanes<W> lanes;
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j)
      if (!(j & D)) {
        const V a = v[j], b = v[j + D];
        v[j] = first_of_both<D, W>(a, b, lanes);
        v[j + D] = second_of_both<D, W>(a, b, lanes);
      }
    transpose<W, D / 2>(v);
  }
}

// The sum of vector i in lane i; uses up the vectors.
template <int W, int D, class V>
static inline V totals(V* v) {
  if constexpr (D == 0) {
    return v[0];
  } else {
    constexpr AllLanes<W> lanes;
#pragma GCC unroll 16
    for (int j = 0; j < D; ++j) v[j] = joined<D, W>(v[j], v[j + D], lanes) + swapped<D, W>(v[j], v[j + D], lanes);
    return totals<W, D / 2>(v);
  }
}
