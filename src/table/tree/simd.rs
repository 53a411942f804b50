//! Lanes of AVX-512, of AVX2 with BMI, and the choice between them and portable code, made once for each image.
#![allow(unsafe_code)]

use super::forms::Block;
use super::image::{Form, Nets, Ranges, Services};
use super::lanes::Scalar;
use super::walk::Paths;

/// The fastest walks that this processor can take over blocks of this form, always of so many trees.
pub fn paths(form: Form, trees: usize) -> Paths {
    all_paths(form, trees)[0]
}

/// All walks that this processor can take, the fastest first; portable code runs everywhere.
pub fn all_paths(form: Form, trees: usize) -> Vec<Paths> {
    match form {
        Form::Services => paths_over::<Services>(trees),
        Form::Nets => paths_over::<Nets>(trees),
        Form::Ranges => paths_over::<Ranges>(trees),
    }
}

fn paths_over<B: Block>(trees: usize) -> Vec<Paths> {
    #[cfg(target_arch = "x86_64")]
    let with_vectors = [avx512::paths::<B>(trees), avx2::paths::<B>(trees)];
    #[cfg(not(target_arch = "x86_64"))]
    let with_vectors: [Option<Paths>; 0] = [];
    with_vectors.into_iter().flatten().chain([Paths::of::<Scalar, B>(trees)]).collect()
}

/// Lanes of the functions `below`, `in_services`, `in_nets` and `in_ranges`, walks compiled for the features that are named, and `paths`, which gives
/// them out where the processor has these.
#[cfg(target_arch = "x86_64")]
macro_rules! walks {
    ($lanes:ident, $($feature:tt),+) => {
        /// Walks of these lanes, where the processor has all features.
        pub fn paths<B: Block>(trees: usize) -> Option<Paths> {
            let has_all = $(is_x86_feature_detected!($feature))&&+;
            let finds = [find::<B, 0>, find::<B, 1>, find::<B, 2>, find::<B, 3>, find::<B, 4>, find::<B, 5>];
            has_all.then(|| Paths { find: finds[trees], find_batch: find_batch::<B> })
        }

        /// Only reached through [`paths`], which has asked for all features.
        fn find<B: Block, const TREES: usize>(lines: &[Line], addresses: u64, ports: u64, protocol: u32) -> u32 {
            #[target_feature($(enable = $feature),+)]
            fn here<B: Block, const TREES: usize>(
                lines: &[Line],
                addresses: u64,
                ports: u64,
                protocol: u32,
            ) -> u32 {
                walk::find::<$lanes, B, TREES>(lines, addresses, ports, protocol)
            }
            // SAFETY: `paths` gives this function out only where the processor has the features.
            unsafe { here::<B, TREES>(lines, addresses, ports, protocol) }
        }

        /// As [`find`].
        fn find_batch<B: Block>(image: &Walked<'_>, points: &[Point], answers: &mut [u32]) {
            #[target_feature($(enable = $feature),+)]
            fn here<B: Block>(image: &Walked<'_>, points: &[Point], answers: &mut [u32]) {
                walk::find_batch::<$lanes, B>(image, points, answers);
            }
            // SAFETY: as in `find`.
            unsafe { here::<B>(image, points, answers) }
        }

        struct $lanes;

        // Inlined always: vector code only inside a caller compiled for it.
        impl Lanes for $lanes {
            #[inline(always)]
            fn below(boundaries: &Line, key: u32) -> usize {
                // SAFETY: inlined into walks that `paths` gives out alone.
                unsafe { below(boundaries, key) }
            }

            #[inline(always)]
            fn in_services(block: &Services, key: &Key, outside: &Line) -> u32 {
                // SAFETY: as in `below`.
                unsafe { in_services(block, key, outside) }
            }

            #[inline(always)]
            fn in_nets(block: &Nets, key: &Key) -> u32 {
                // SAFETY: as in `below`.
                unsafe { in_nets(block, key) }
            }

            #[inline(always)]
            fn in_ranges(block: &Ranges, key: &Key) -> u32 {
                // SAFETY: as in `below`.
                unsafe { in_ranges(block, key) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps,
        _mm256_cmpeq_epi32, _mm256_cmpgt_epi32, _mm256_loadu_si256, _mm256_min_epu32, _mm256_movemask_epi8,
        _mm256_movemask_ps, _mm256_or_si256, _mm256_packs_epi32, _mm256_permutevar8x32_epi32,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_sub_epi8,
        _mm256_sub_epi16, _mm256_sub_epi32, _mm256_subs_epu8, _mm256_subs_epu16, _mm256_xor_si256,
    };

    use super::super::forms::Block;
    use super::super::image::{LANES, Line, Nets, Ranges, Services};
    use super::super::lanes::Lanes;
    use super::super::walk::{self, Key, Paths, Point, Walked};

    walks!(Avx2, "avx2", "bmi1", "bmi2", "popcnt");

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn halves(line: &Line) -> [__m256i; 2] {
        let (low, high) = line.0.split_at(LANES);
        // SAFETY: each half is eight words, 32 bytes, and the load has no need of alignment.
        [low, high].map(|half| unsafe { _mm256_loadu_si256(half.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn mask(lanes: __m256i) -> u32 {
        _mm256_movemask_ps(_mm256_castsi256_ps(lanes)).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn below(boundaries: &Line, key: u32) -> usize {
        let key = _mm256_set1_epi32(key.cast_signed());
        let [low, high] = halves(boundaries).map(|half| _mm256_cmpgt_epi32(key, half));
        // Two bits for each boundary, in any order.
        let bits = _mm256_movemask_epi8(_mm256_packs_epi32(low, high));
        bits.count_ones() as usize / 2
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn each(word: u32) -> __m256i {
        _mm256_set1_epi32(word.cast_signed())
    }

    /// Lanes in which not all bits are zero are outside.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn outside_ports(ports: &Line, key: &Key) -> __m256i {
        let [low, span] = halves(ports);
        _mm256_subs_epu16(_mm256_sub_epi16(each(key.ports()), low), span)
    }

    /// Of ports and protocols, as [`outside_ports`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn outside([_, _, ports, rest]: &Ranges, key: &Key) -> __m256i {
        let [low_and_span, _] = halves(rest);
        let offset = _mm256_slli_epi32::<16>(_mm256_sub_epi16(each(key.protocol()), low_and_span));
        _mm256_or_si256(outside_ports(ports, key), _mm256_subs_epu16(offset, low_and_span))
    }

    /// Numbers without so many last bits, up to 32. `_mm256_srlv_epi32` is this instruction, but compilers make two more of
    /// it, which ask whether bits are fewer than 32.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn without(mut numbers: __m256i, last_bits: __m256i) -> __m256i {
        // SAFETY: the instruction reads and writes these registers alone, and is there where AVX2 is.
        unsafe {
            asm!(
                "vpsrlvd {numbers}, {numbers}, {bits}",
                numbers = inout(ymm_reg) numbers,
                bits = in(ymm_reg) last_bits,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        numbers
    }

    /// Of nets that say all but these last bits, as [`outside_ports`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn outside_addresses(addresses: &Line, key: &Key, last_bits: [__m256i; 2]) -> __m256i {
        let address = |net, value, last_bits| without(_mm256_xor_si256(each(value), net), last_bits);
        let [sources, destinations] = halves(addresses);
        let [source_bits, destination_bits] = last_bits;
        let source = address(sources, key.source(), source_bits);
        _mm256_or_si256(source, address(destinations, key.destination(), destination_bits))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_services([addresses, rest]: &Services, key: &Key, outside: &Line) -> u32 {
        let [words, _] = halves(rest);
        let last_bits = [_mm256_srli_epi32::<26>(words), _mm256_and_si256(words, each(63))];
        let place = _mm256_srli_epi32::<11>(words);
        let [first, second] =
            halves(outside).map(|half| _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(half, place)));
        let is_second = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(place));
        let found = _mm256_castps_si256(_mm256_blendv_ps(first, second, is_second));
        let bit = without(found, _mm256_and_si256(_mm256_srli_epi32::<6>(words), each(31)));
        let all =
            _mm256_or_si256(outside_addresses(addresses, key, last_bits), _mm256_and_si256(bit, each(1)));
        mask(_mm256_cmpeq_epi32(all, _mm256_setzero_si256()))
    }

    /// Of all that a rule says, as [`outside_ports`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn outside_nets([addresses, ports, rest]: &Nets, key: &Key) -> __m256i {
        let [bytes, _] = halves(rest);
        let last_bits = [_mm256_srli_epi32::<24>(bytes), _mm256_and_si256(bytes, each(0xFF))];
        let addresses = outside_addresses(addresses, key, last_bits);
        // The third byte; that of the lows is the second.
        let offset = _mm256_slli_epi32::<8>(_mm256_sub_epi8(each(key.protocol_above()), bytes));
        let protocol = _mm256_and_si256(_mm256_subs_epu8(offset, bytes), each(0xFF << 16));
        _mm256_or_si256(addresses, _mm256_or_si256(outside_ports(ports, key), protocol))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_nets(block: &Nets, key: &Key) -> u32 {
        mask(_mm256_cmpeq_epi32(outside_nets(block, key), _mm256_setzero_si256()))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_ranges(block: &Ranges, key: &Key) -> u32 {
        // What is not zero is outside.
        let address = |line: &Line, value: u32| {
            let [low, span] = halves(line);
            let offset = _mm256_sub_epi32(each(value), low);
            _mm256_xor_si256(_mm256_min_epu32(offset, span), offset)
        };
        let addresses =
            _mm256_or_si256(address(&block[0], key.source()), address(&block[1], key.destination()));
        let all = _mm256_or_si256(addresses, outside(block, key));
        mask(_mm256_cmpeq_epi32(all, _mm256_setzero_si256()))
    }
}

/// As `avx2`, but what is compared comes as bits: fewer instructions, all else alike.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _mm256_and_si256, _mm256_cmple_epu32_mask, _mm256_mask_cmple_epu32_mask,
        _mm256_mask_testn_epi32_mask, _mm256_or_si256, _mm256_permutex2var_epi32, _mm256_rorv_epi32,
        _mm256_srli_epi32, _mm256_sub_epi32, _mm256_testn_epi32_mask, _mm512_cmpgt_epi32_mask,
        _mm512_load_si512, _mm512_set1_epi32,
    };

    use super::super::forms::Block;
    use super::super::image::{Line, Nets, Ranges, Services};
    use super::super::lanes::Lanes;
    use super::super::walk::{self, Key, Paths, Point, Walked};
    use super::avx2::{each, halves, outside, outside_addresses, outside_nets};

    walks!(Avx512, "avx512f", "avx512vl", "avx2", "bmi1", "bmi2", "popcnt");

    #[inline]
    #[target_feature(enable = "avx512f,popcnt")]
    fn below(boundaries: &Line, key: u32) -> usize {
        // SAFETY: a line is sixteen words and aligned.
        let boundaries = unsafe { _mm512_load_si512(boundaries.0.as_ptr().cast()) };
        let bits = _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(key.cast_signed()), boundaries);
        bits.count_ones() as usize
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn in_services([addresses, rest]: &Services, key: &Key, outside: &Line) -> u32 {
        let [words, _] = halves(rest);
        let last_bits = [_mm256_srli_epi32::<26>(words), _mm256_and_si256(words, each(63))];
        let [first, second] = halves(outside);
        // Of a place the last four bits count, of a rotation the last five.
        let found = _mm256_permutex2var_epi32(first, _mm256_srli_epi32::<11>(words), second);
        let bit = _mm256_and_si256(_mm256_rorv_epi32(found, _mm256_srli_epi32::<6>(words)), each(1));
        let all = _mm256_or_si256(outside_addresses(addresses, key, last_bits), bit);
        u32::from(_mm256_testn_epi32_mask(all, all))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn in_nets(block: &Nets, key: &Key) -> u32 {
        let outside = outside_nets(block, key);
        u32::from(_mm256_testn_epi32_mask(outside, outside))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn in_ranges(block: &Ranges, key: &Key) -> u32 {
        let [low, span] = halves(&block[0]);
        let inside = _mm256_cmple_epu32_mask(_mm256_sub_epi32(each(key.source()), low), span);
        let [low, span] = halves(&block[1]);
        let inside =
            _mm256_mask_cmple_epu32_mask(inside, _mm256_sub_epi32(each(key.destination()), low), span);
        let outside = outside(block, key);
        u32::from(_mm256_mask_testn_epi32_mask(inside, outside, outside))
    }
}
