// The whole network in one dispatch: one workgroup of 64 invocations a patch, everything between the layers in
// workgroup memory. The offsets are those of model.rs, in groups of four numbers; model.rs asserts them.

const CONV1_WEIGHT: u32 = 0u;      // [9][1][16]
const CONV1_BIAS: u32 = 36u;       // [16]
const CONV2_WEIGHT: u32 = 40u;     // [9][16][32]
const CONV2_BIAS: u32 = 1192u;     // [32]
const DENSE1_WEIGHT: u32 = 1200u;  // [512][64]
const DENSE1_BIAS: u32 = 9392u;    // [64]
const DENSE2_WEIGHT: u32 = 37632u; // [64][11], counted in single numbers: 11 is no multiple of four
const DENSE2_BIAS: u32 = 38336u;   // [11], likewise

const PIXELS: u32 = 64u;
const CLASSES: u32 = 11u;
// The 8x8 image with a border of zeros, so that the convolutions need no bounds checks.
const BORDERED: u32 = 10u;

@group(0) @binding(0) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> patches: array<f32>;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;

var<workgroup> image: array<f32, 100>;
var<workgroup> conv1: array<vec4<f32>, 400>;  // [10][10][16]
var<workgroup> pooled: array<vec4<f32>, 128>; // [4][4][32]
var<workgroup> partial: array<vec4<f32>, 64>; // [4 quarters of the inputs][64]
var<workgroup> hidden: array<f32, 64>;

fn weight(index: u32) -> f32 {
    return weights[index / 4u][index % 4u];
}

@compute @workgroup_size(64)
fn network(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let patch_index = group.x;
    let row = lane / 8u;
    let column = lane % 8u;
    let centre = (row + 1u) * BORDERED + column + 1u;

    for (var i = lane; i < BORDERED * BORDERED; i += PIXELS) {
        let y = i / BORDERED;
        let x = i % BORDERED;
        if (y == 0u || y == 9u || x == 0u || x == 9u) {
            image[i] = 0.0;
            for (var q = 0u; q < 4u; q++) {
                conv1[i * 4u + q] = vec4<f32>(0.0);
            }
        }
    }
    image[centre] = patches[patch_index * PIXELS + lane];
    workgroupBarrier();

    // First convolution: one pixel an invocation, 16 channels.
    var a = weights[CONV1_BIAS];
    var b = weights[CONV1_BIAS + 1u];
    var c = weights[CONV1_BIAS + 2u];
    var d = weights[CONV1_BIAS + 3u];
    for (var tap = 0u; tap < 9u; tap++) {
        let pixel = image[(row + tap / 3u) * BORDERED + column + tap % 3u];
        let w = CONV1_WEIGHT + tap * 4u;
        a += pixel * weights[w];
        b += pixel * weights[w + 1u];
        c += pixel * weights[w + 2u];
        d += pixel * weights[w + 3u];
    }
    conv1[centre * 4u] = max(a, vec4<f32>(0.0));
    conv1[centre * 4u + 1u] = max(b, vec4<f32>(0.0));
    conv1[centre * 4u + 2u] = max(c, vec4<f32>(0.0));
    conv1[centre * 4u + 3u] = max(d, vec4<f32>(0.0));
    workgroupBarrier();

    // Second convolution and pool: one 2x2 block and 8 of the 32 channels an invocation, so that each weight
    // is read once for four pixels.
    let cell = lane / 4u;
    let channels = (lane % 4u) * 2u;
    let top = (cell / 4u) * 2u;
    let left = (cell % 4u) * 2u;
    var p0 = vec4<f32>(0.0);
    var p1 = p0;
    var p2 = p0;
    var p3 = p0;
    var q0 = p0;
    var q1 = p0;
    var q2 = p0;
    var q3 = p0;
    for (var tap = 0u; tap < 9u; tap++) {
        let corner = (top + tap / 3u) * BORDERED + left + tap % 3u;
        for (var quad = 0u; quad < 4u; quad++) {
            let x0 = conv1[corner * 4u + quad];
            let x1 = conv1[(corner + 1u) * 4u + quad];
            let x2 = conv1[(corner + BORDERED) * 4u + quad];
            let x3 = conv1[(corner + BORDERED + 1u) * 4u + quad];
            let w = CONV2_WEIGHT + (tap * 16u + quad * 4u) * 8u + channels;
            for (var k = 0u; k < 4u; k++) {
                let u = weights[w + k * 8u];
                let v = weights[w + k * 8u + 1u];
                p0 += x0[k] * u;
                q0 += x0[k] * v;
                p1 += x1[k] * u;
                q1 += x1[k] * v;
                p2 += x2[k] * u;
                q2 += x2[k] * v;
                p3 += x3[k] * u;
                q3 += x3[k] * v;
            }
        }
    }
    // The bias is the same for the four pixels, so it and the relu may come after the pool.
    let p = max(max(p0, p1), max(p2, p3)) + weights[CONV2_BIAS + channels];
    let q = max(max(q0, q1), max(q2, q3)) + weights[CONV2_BIAS + channels + 1u];
    pooled[cell * 8u + channels] = max(p, vec4<f32>(0.0));
    pooled[cell * 8u + channels + 1u] = max(q, vec4<f32>(0.0));
    workgroupBarrier();

    // First dense layer: four outputs an invocation, over a quarter of the 512 inputs.
    let outputs = lane % 16u;
    let quarter = lane / 16u;
    var sum = vec4<f32>(0.0);
    for (var i = quarter * 32u; i < quarter * 32u + 32u; i++) {
        let x = pooled[i];
        let w = DENSE1_WEIGHT + i * 64u + outputs;
        sum += x.x * weights[w] + x.y * weights[w + 16u] + x.z * weights[w + 32u] + x.w * weights[w + 48u];
    }
    partial[lane] = sum;
    workgroupBarrier();
    if (lane < 16u) {
        let total = partial[lane] + partial[lane + 16u] + partial[lane + 32u] + partial[lane + 48u];
        let value = max(total + weights[DENSE1_BIAS + lane], vec4<f32>(0.0));
        hidden[lane * 4u] = value.x;
        hidden[lane * 4u + 1u] = value.y;
        hidden[lane * 4u + 2u] = value.z;
        hidden[lane * 4u + 3u] = value.w;
    }
    workgroupBarrier();

    // Second dense layer: one class an invocation.
    if (lane < CLASSES) {
        var score = weight(DENSE2_BIAS + lane);
        for (var i = 0u; i < 64u; i++) {
            score += hidden[i] * weight(DENSE2_WEIGHT + i * CLASSES + lane);
        }
        logits[patch_index * CLASSES + lane] = score;
    }
}
