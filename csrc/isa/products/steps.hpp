// What the products of all instruction sets share. Included only inside `namespace bisparse::BISPARSE_ISA`.
// No std templates here or below: a shared inline function could be linked in from a file built for a wider machine.

typedef std::uint16_t Bf16;

constexpr int kParts = kStep / kLanes;  // vectors per step

static inline std::int64_t at_most(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

static inline std::uint32_t mask_at(const std::uint8_t* index) {
  std::uint32_t mask;
  __builtin_memcpy(&mask, index, sizeof mask);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  mask = __builtin_bswap32(mask);
#endif
  return mask;
}

// The values of a row, also where the row must be read from the padded copy.
template <class T>
static inline const T* values_of(const PackedRows& matrix, std::int64_t row) {
  const std::int64_t stride = matrix.view.row_values();
  if (row >= matrix.tail_first) return static_cast<const T*>(matrix.tail) + (row - matrix.tail_first) * stride;
  return static_cast<const T*>(matrix.view.values) + row * stride;
}

static inline const std::uint8_t* index_of(const PackedView& view, std::int64_t row) {
  return view.index + row * view.row_bytes();
}

// Slots per 16 columns where every 16 columns hold equally many, else 0: fixed strides need no counting of bits.
static inline int slots_per_16(const PackedView& view) { return 16 % view.block == 0 ? 16 / view.block * view.keep : 0; }

// Calls body.template operator()<T, Kept>() for the dtype and pattern of a matrix.
template <class Body>
static inline void for_pattern(const PackedView& view, Body body) {
  const int kept = slots_per_16(view);
  if (view.dtype == Dtype::bf16) {
    if (kept == 8) body.template operator()<Bf16, 8>();
    else if (kept == 4) body.template operator()<Bf16, 4>();
    else body.template operator()<Bf16, 0>();
  } else {
    if (kept == 8) body.template operator()<float, 8>();
    else if (kept == 4) body.template operator()<float, 4>();
    else body.template operator()<float, 0>();
  }
}
