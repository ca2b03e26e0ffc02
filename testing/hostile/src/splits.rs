//! One input in pieces: however the network cuts a stream, its meaning is the same.

/// Returns the input whole, byte by byte, and cut in ways that follow from the input itself.
pub(crate) fn splits(input: &[u8]) -> [Vec<&[u8]>; 4] {
    let whole = vec![input];
    let bytes = input.chunks(1).collect();
    let first = input.first().map_or(1, |byte| usize::from(*byte));
    let even = input.chunks(first % 13 + 2).collect();
    let mut uneven = Vec::new();
    let (mut rest, mut state) = (input, first);
    while !rest.is_empty() {
        // Any spread is good, as long as it is the same each time.
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let (piece, behind) = rest.split_at((state >> 16) % 23 % rest.len() + 1);
        uneven.push(piece);
        // Empty pieces may arrive as well.
        uneven.push(&[]);
        rest = behind;
    }
    [whole, bytes, even, uneven]
}
