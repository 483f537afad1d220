//! Exact duplicates: rows that repeat an earlier one, value by value.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::embeddings::Rows;

/// How many rows equal an earlier one, value by value (−0 equals 0 only bit by bit: it does not).
pub fn duplicate_rows(rows: Rows<'_>) -> u64 {
    // A 64-bit hash proposes, the values decide.
    let mut firsts: HashMap<u64, Vec<u32>> = HashMap::with_capacity(rows.len());
    let mut duplicates = 0;
    for (i, row) in rows.iter().enumerate() {
        let bytes: &[u8] = bytemuck::cast_slice(&row);
        let same_hash = firsts.entry(xxh3_64(bytes)).or_default();
        let known = same_hash
            .iter()
            .any(|&j| bytemuck::cast_slice::<f32, u8>(&rows.row(j as usize)) == bytes);
        if known {
            duplicates += 1;
        } else {
            same_hash.push(i as u32);
        }
    }
    duplicates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_but_the_first_counts() {
        let values = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 1.0, 2.0, 2.0, 1.0];
        assert_eq!(duplicate_rows(Rows::new(&values, 2)), 2);
        assert_eq!(duplicate_rows(Rows::new(&values[..2], 2)), 0);
    }
}
