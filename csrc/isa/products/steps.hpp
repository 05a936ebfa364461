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

// Calls body.template operator()<T>() for the type of the values.
template <class Body>
static inline void for_dtype(Dtype dtype, Body body) {
  if (dtype == Dtype::bf16) body.template operator()<Bf16>();
  else body.template operator()<float>();
}

constexpr std::int64_t kColumnRows = 16;  // rows of a group of x = W^T y

// Calls body.template operator()<Batch>(first) for blocks of a batch: as equal as possible, at most kBatchAtOnce each.
template <class Body>
static inline void for_batches(std::int64_t batch, Body body) {
  for (std::int64_t first = 0; first < batch;) {
    const std::int64_t size = batch_block(batch - first, kBatchAtOnce);
    switch (size) {
      case 1: body.template operator()<1>(first); break;
      case 2: body.template operator()<2>(first); break;
      case 3: body.template operator()<3>(first); break;
      case 4: body.template operator()<4>(first); break;
      default:
        if constexpr (kBatchAtOnce > 4) {
          switch (size) {
            case 5: body.template operator()<5>(first); break;
            case 6: body.template operator()<6>(first); break;
            case 7: body.template operator()<7>(first); break;
            default: body.template operator()<8>(first); break;
          }
        }
    }
    first += size;
  }
}
