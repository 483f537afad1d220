// Adds up the counts of pair_histogram.wgsl's workgroups.
//
//   strips   [workgroup][2048] bins 2w and 2w + 1 in the halves of word w
//   counts   [4096] u32: pairs per bin, added to
// A workgroup of 256 owns 256 words of `span` workgroups. Grid: 8 × ⌈workgroups / span⌉.

struct Params {
    workgroups: u32,
    span: u32,
    pad_0: u32,
    pad_1: u32,
}

const WORDS: u32 = 2048u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> strips: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;

@compute @workgroup_size(256)
fn pair_histogram_total(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let word = group.x * 256u + lane;
    let end = min((group.y + 1u) * params.span, params.workgroups);
    var even = 0u;
    var odd = 0u;
    for (var at = group.y * params.span; at < end; at++) {
        let pair = strips[at * WORDS + word];
        even += pair & 0xffffu;
        odd += pair >> 16u;
    }
    if even != 0u {
        atomicAdd(&counts[2u * word], even);
    }
    if odd != 0u {
        atomicAdd(&counts[2u * word + 1u], odd);
    }
}
