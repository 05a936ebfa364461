// Completes a tile whose potentials leave ties, on bit words: which of the entries that are exactly at the threshold are
// kept so that every line holds K? Any such completion is optimal, and for scores with many zeros there nearly always is one.
// Included only inside `namespace bisparse::BISPARSE_ISA`.

struct TieProblem {
  int size, keep;
  std::uint64_t above[kMaxBlock];  // per row: columns whose entry exceeds the threshold, kept in any case
  std::uint64_t level[kMaxBlock];  // per row: columns whose entry equals it
  std::uint64_t taken[kMaxBlock];  // the answer: those of `level` that are kept
  std::uint64_t by_room[kMaxBlock];  // columns that still have to take exactly so many
  int room[kMaxBlock];               // the same, by column; filled in for `augment` only
};

static inline std::uint64_t bit(int j) { return std::uint64_t(1) << j; }

// The n lowest of the bits set in x, n >= 1; all if there are fewer.
static inline std::uint64_t lowest_bits(std::uint64_t x, int n) {
#if defined(__BMI2__)
  return _pdep_u64(~std::uint64_t(0) >> (64 - n), x);
#else
  std::uint64_t rest = x;
  for (; rest && n > 0; --n) rest &= rest - 1;
  return x & ~rest;
#endif
}

// Groups the columns by what they still have to take; false when one is already overfull.
static inline bool count_room(TieProblem& t) {
  std::uint64_t plane[7] = {};  // the columns' counts of `above`, bit by bit
  for (int i = 0; i < t.size; ++i)
    for (std::uint64_t d = 0, carry = t.above[i]; t.size >> d; ++d) {
      const std::uint64_t sum = plane[d] ^ carry;
      carry &= plane[d];
      plane[d] = sum;
    }
  std::uint64_t rest = ~std::uint64_t(0) >> (64 - t.size);
  for (int count = 0; count <= t.keep; ++count) {
    std::uint64_t equal = rest;
    for (int d = 0; t.size >> d; ++d) equal &= (count >> d & 1) ? plane[d] : ~plane[d];
    t.by_room[t.keep - count] = equal;
    rest &= ~equal;
  }
  return rest == 0;
}

// Each row takes the roomiest of its columns. Returns how many entries are missing in all.
static inline int fill_greedily(TieProblem& t) {
  int missing = 0;
  for (int i = 0; i < t.size; ++i) {
    int wanted = t.keep - __builtin_popcountll(t.above[i]);
    std::uint64_t taken = 0;
    for (int room = t.keep; room > 0 && wanted > 0; --room) {
      const std::uint64_t pick = lowest_bits(t.by_room[room] & t.level[i] & ~taken, wanted);
      wanted -= __builtin_popcountll(pick);
      taken |= pick;
      t.by_room[room] ^= pick;
      t.by_room[room - 1] |= pick;
    }
    t.taken[i] = taken;
    missing += wanted;
  }
  return missing;
}

// Finds row `start` one more entry along an alternating path (breadth first); false when there is none.
static inline bool augment(TieProblem& t, int start) {
  int column_from[kMaxBlock], row_from[kMaxBlock], queue[kMaxBlock], head = 0, tail = 0;
  std::uint64_t seen_columns = 0, seen_rows = bit(start);
  queue[tail++] = start;
  while (head < tail) {
    const int row = queue[head++];
    for (std::uint64_t rest = t.level[row] & ~t.taken[row] & ~seen_columns; rest; rest &= rest - 1) {
      int j = lowest_bit(rest);
      seen_columns |= bit(j);
      column_from[j] = row;
      if (t.room[j] > 0) {
        --t.room[j];
        for (int i = row;; i = column_from[j]) {
          t.taken[i] |= bit(j);
          if (i == start) return true;
          j = row_from[i];
          t.taken[i] &= ~bit(j);
        }
      }
      for (int i = 0; i < t.size; ++i)
        if ((t.taken[i] & bit(j)) && !(seen_rows & bit(i))) seen_rows |= bit(i), row_from[i] = j, queue[tail++] = i;
    }
  }
  return false;
}

static inline bool complete_ties(TieProblem& t) {
  if (!count_room(t)) return false;
  if (fill_greedily(t) == 0) return true;
  for (int room = 0; room <= t.keep; ++room)
    for (std::uint64_t rest = t.by_room[room]; rest; rest &= rest - 1) t.room[lowest_bit(rest)] = room;
  for (int i = 0; i < t.size; ++i)
    for (int held = __builtin_popcountll(t.above[i] | t.taken[i]); held < t.keep; ++held)
      if (!augment(t, i)) return false;
  return true;
}
