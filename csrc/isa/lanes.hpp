// Vectors of one instruction set. Included only inside `namespace bisparse::BISPARSE_ISA`, after BISPARSE_LANE_BYTES.
// No std templates here or below: a shared inline function could be linked in from a file built for a wider machine.

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float Vec __attribute__((vector_size(BISPARSE_LANE_BYTES)));
  typedef std::int32_t Int __attribute__((vector_size(BISPARSE_LANE_BYTES)));
  typedef std::int32_t Bits;
  static constexpr int count = BISPARSE_LANE_BYTES / 4;
  static constexpr Bits magnitude = 0x7fffffff, infinity = 0x7f800000, unit_scale = 254 << 23, least_scale = 1 << 23;
  static constexpr float rounding = 0x1p-21f;  // of s - u - v for scores below 2
};

template <>
struct Lanes<double> {
  typedef double Vec __attribute__((vector_size(BISPARSE_LANE_BYTES)));
  typedef std::int64_t Int __attribute__((vector_size(BISPARSE_LANE_BYTES)));
  typedef std::int64_t Bits;
  static constexpr int count = BISPARSE_LANE_BYTES / 8;
  static constexpr Bits magnitude = 0x7fffffffffffffff, infinity = 0x7ff0000000000000, unit_scale = 2046ll << 52,
                        least_scale = 1ll << 52;
  static constexpr double rounding = 0x1p-49;
};

template <class T>
using Vec = typename Lanes<T>::Vec;
template <class T>
using Int = typename Lanes<T>::Int;

template <class V, class T>
static inline V splat(T value) {
  return V{} + value;
}

#if BISPARSE_LANE_BYTES == 64  // the full-mask forms: GCC 12's plain ones warn inside its own header (PR 105593)
static inline Vec<float> min(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
static inline Vec<float> max(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
static inline Vec<double> min(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b); }
static inline Vec<double> max(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b); }
#elif BISPARSE_LANE_BYTES == 32
static inline Vec<float> min(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm256_min_ps((__m256)a, (__m256)b); }
static inline Vec<float> max(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b); }
static inline Vec<double> min(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm256_min_pd((__m256d)a, (__m256d)b); }
static inline Vec<double> max(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__)
static inline Vec<float> min(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm_min_ps((__m128)a, (__m128)b); }
static inline Vec<float> max(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm_max_ps((__m128)a, (__m128)b); }
static inline Vec<double> min(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm_min_pd((__m128d)a, (__m128d)b); }
static inline Vec<double> max(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
template <class V>
static inline V min(V a, V b) { return a < b ? a : b; }
template <class V>
static inline V max(V a, V b) { return a > b ? a : b; }
#endif

// Lane l of vector e is scalars(x)[e * lanes + l]: indexing a vector by a variable lane would copy all of it.
static inline float* scalars(Vec<float>* x) { return reinterpret_cast<float*>(x); }
static inline double* scalars(Vec<double>* x) { return reinterpret_cast<double*>(x); }
static inline std::int32_t* scalars(Int<float>* x) { return reinterpret_cast<std::int32_t*>(x); }
static inline std::int64_t* scalars(Int<double>* x) { return reinterpret_cast<std::int64_t*>(x); }

template <class V>
static inline bool any_set(V mask) {
#if BISPARSE_LANE_BYTES == 64
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
  std::int64_t word[sizeof(V) / 8], all = 0;
  __builtin_memcpy(word, &mask, sizeof mask);
  for (std::int64_t w : word) all |= w;
  return all != 0;
#endif
}

template <class V>
static inline bool all_set(V mask) {
  return !any_set(~mask);
}

static inline int least(int a, int b) { return a < b ? a : b; }

// The lanes of one vector in float64: as many vectors as needed.
template <class T>
struct Wide {
  static constexpr int parts = sizeof(double) / sizeof(T);
  Vec<double> part[parts];
};

static inline Wide<float> widen(Vec<float> x) {
  typedef float HalfVec __attribute__((vector_size(BISPARSE_LANE_BYTES / 2)));
  HalfVec half[2];
  __builtin_memcpy(half, &x, sizeof x);
  return {{__builtin_convertvector(half[0], Vec<double>), __builtin_convertvector(half[1], Vec<double>)}};
}

static inline Wide<double> widen(Vec<double> x) { return {{x}}; }

// Sums in float64, lane by lane.
template <class T>
struct Sum {
  Wide<T> total = {};
  inline void add(const Wide<T>& x) {
    for (int h = 0; h < Wide<T>::parts; ++h) total.part[h] += x.part[h];
  }
  inline void scaled(Vec<T> by, double* out) const {
    const Wide<T> factor = widen(by);
    for (int h = 0; h < Wide<T>::parts; ++h) {
      const Vec<double> product = total.part[h] * factor.part[h];
      __builtin_memcpy(out + h * Lanes<double>::count, &product, sizeof product);
    }
  }
};
