// The K-th and (K+1)-th largest of M numbers, one problem per lane, without branches.
// Included only inside `namespace bisparse::BISPARSE_ISA`.

template <class V>
struct Straddle {  // the two order statistics that a threshold must separate
  V above, below;
};

template <class V>
static inline void order(V& high, V& low) {  // comparator: the larger goes to `high`
  const V h = max(high, low);
  low = min(high, low);
  high = h;
}

// Batcher's odd-even merge sort of N = 2^k registers, descending; what nobody reads is dropped by the compiler.
template <int First, int Last, int Step, class V>
static inline __attribute__((always_inline)) void merge_odd_even(V* x) {
  if constexpr (Step * 2 < Last - 1 - First) {
    merge_odd_even<First, Last, Step * 2>(x);
    merge_odd_even<First + Step, Last, Step * 2>(x);
#pragma GCC unroll 64
    for (int i = First + Step; i < Last - 1 - Step; i += Step * 2) order(x[i], x[i + Step]);
  } else {
    order(x[First], x[First + Step]);
  }
}

template <int First, int Last, class V>
static inline __attribute__((always_inline)) void sort_descending(V* x) {
  if constexpr (Last - First > 1) {
    constexpr int middle = First + (Last - First) / 2;
    sort_descending<First, middle>(x);
    sort_descending<middle, Last>(x);
    merge_odd_even<First, Last, 1>(x);
  }
}

// K-th largest of the union of two descending lists of H: max over i of min(A's i-th, B's (K - i)-th).
template <int H, int K, class V>
static inline __attribute__((always_inline)) V kth_of_union(const V* a, const V* b) {
  constexpr int first = K > H ? K - H : 0, last = K < H ? K : H;
  V best = first == 0 ? b[K - 1] : (first == K ? a[K - 1] : min(a[(first > 0 ? first : 1) - 1], b[K - first - 1]));
#pragma GCC unroll 64
  for (int i = first + 1; i <= last; ++i) best = max(best, i == K ? a[i - 1] : min(a[i - 1], b[i == K ? 0 : K - i - 1]));
  return best;
}

template <int M, int K, class V>
static inline __attribute__((always_inline)) Straddle<V> straddle(V* x) {
  static_assert(M >= 4 && (M & (M - 1)) == 0 && K >= 1 && K < M);
  sort_descending<0, M / 2>(x);
  sort_descending<0, M / 2>(x + M / 2);
  return {kth_of_union<M / 2, K>(x, x + M / 2), kth_of_union<M / 2, K + 1>(x, x + M / 2)};
}

// Any M from 2 to 64 and any K: Batcher's merge exchange (Knuth 5.2.2 M) as a table, pruned to positions K-1 and K.
struct Network {
  static constexpr int capacity = 1200;  // Batcher's sort of 64 has 543 comparators
  int size = 0;
  std::uint8_t high[capacity], low[capacity];
};

static inline void make_network(Network& net, int m, int k) {
  std::uint8_t high[Network::capacity], low[Network::capacity];
  int n = 0, t = 0;
  while ((1 << t) < m) ++t;
  for (int p = 1 << (t - 1); p > 0; p >>= 1) {
    for (int q = 1 << (t - 1), r = 0, d = p;; d = q - p, q >>= 1, r = p) {
      for (int i = 0; i + d < m; ++i)
        if ((i & p) == r) high[n] = static_cast<std::uint8_t>(i), low[n++] = static_cast<std::uint8_t>(i + d);
      if (q == p) break;
    }
  }
  bool live[kMaxBlock] = {};
  live[k - 1] = live[k] = true;
  int kept = n;
  for (int c = n - 1; c >= 0; --c) {
    if (!live[high[c]] && !live[low[c]]) continue;
    live[high[c]] = live[low[c]] = true;
    high[--kept] = high[c], low[kept] = low[c];
  }
  net.size = n - kept;
  for (int c = 0; c < net.size; ++c) net.high[c] = high[kept + c], net.low[c] = low[kept + c];
}

template <class V>
static inline Straddle<V> straddle(const Network& net, int k, V* x) {
  for (int c = 0; c < net.size; ++c) order(x[net.high[c]], x[net.low[c]]);
  return {x[k - 1], x[k]};
}
