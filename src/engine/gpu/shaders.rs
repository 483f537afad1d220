//! The shaders as Rust sees them: source, buffers and parameters of each, one table row per kernel, and
//! the product cores that kernels are joined with.

use bytemuck::{Pod, Zeroable};

/// Invocations of every workgroup.
pub const WORKGROUP: u32 = 256;

/// How a shader uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The parameters.
    Uniform,
    /// A storage buffer that is read.
    Read,
    /// A storage buffer that is written.
    Write,
}
use Access::{Read, Uniform, Write};

/// A member of a parameter struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name, in Rust and in WGSL.
    pub name: &'static str,
    /// Where it begins, in bytes.
    pub offset: usize,
    /// How long it is, in bytes.
    pub size: usize,
}

/// A kernel: a shader file. Its stem and its entry point have one name, which begins with that of an
/// operation.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The entry point.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
    /// Whether a product core goes in front.
    pub on_core: bool,
    /// Workgroup memory of its own, in bytes.
    pub own_storage: u32,
    /// Name and access of the buffers in group 0, in the order of their bindings.
    pub bindings: &'static [(&'static str, Access)],
    /// Members of the parameter struct.
    pub params: &'static [Field],
    /// Its size in bytes.
    pub params_size: usize,
}

/// How a core holds rows and multiplies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// f32 values, f32 arithmetic.
    F32,
    /// f16 values, f32 arithmetic.
    F16,
    /// Cooperative matrices: f16 values, f32 sums.
    Cooperative(Matrices),
    /// Cooperative matrices on values split in two f16: f32 grade.
    Split(Matrices),
}

/// What cooperative matrices of an adapter look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrices {
    /// Rows and columns of a matrix, 8 or 16.
    pub side: u32,
    /// Invocations of a subgroup.
    pub subgroup: u32,
}

impl Matrices {
    /// Whether the subgroups of a workgroup can share out the matrices of a tile.
    pub fn divide_a_tile(self) -> bool {
        let [rows, columns, _] = self.shares();
        matches!(self.side, 8 | 16) && rows > 0 && columns > 0
    }

    /// Parts in which a tile is handed over: halves where that is possible, to spare workgroup memory.
    fn parts(self) -> u32 {
        let [_, columns, _] = self.shares();
        if columns.is_multiple_of(2) { 2 } else { 1 }
    }

    /// Rows and columns of matrices of a tile that a subgroup owns, and subgroups side by side.
    fn shares(self) -> [u32; 3] {
        let (matrices, subgroups) = (64 / self.side.max(1), WORKGROUP / self.subgroup.max(1));
        // As square as it gets: what is loaded grows with rows + columns.
        let down = (1..=subgroups)
            .find(|d| d * d >= subgroups)
            .unwrap_or(1)
            .next_power_of_two();
        let across = subgroups / down;
        if down * across != subgroups || down > matrices || across > matrices {
            return [0, 0, 1];
        }
        [matrices / down, matrices / across, across]
    }
}

/// A product core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Core {
    /// How it holds rows and multiplies them.
    pub arithmetic: Arithmetic,
    /// Tiles of 64 × 64 that a workgroup computes at once, along either side: 1 or 2.
    pub patch: usize,
}

impl Core {
    /// Runs on every adapter.
    pub const PLAIN: Self = Self {
        arithmetic: Arithmetic::F32,
        patch: 1,
    };

    /// Its name, with the side of what a workgroup computes.
    pub fn name(&self) -> &'static str {
        match (self.arithmetic, self.patch) {
            (Arithmetic::F32, 1) => "f32-64",
            (Arithmetic::F32, _) => "f32-128",
            (Arithmetic::F16, 1) => "f16-64",
            (Arithmetic::F16, _) => "f16-128",
            (Arithmetic::Cooperative(_), 1) => "cooperative-f16-64",
            (Arithmetic::Cooperative(_), _) => "cooperative-f16-128",
            (Arithmetic::Split(_), 1) => "cooperative-split-64",
            (Arithmetic::Split(_), _) => "cooperative-split-128",
        }
    }

    /// Whether it holds rows as panels of f32.
    pub fn holds_panels_of_f32(&self) -> bool {
        self.arithmetic == Arithmetic::F32
    }

    /// Whether products of f32 rows are as good as f32 arithmetic makes them; else the rows are rounded
    /// to f16 first.
    pub fn is_full_grade(&self) -> bool {
        matches!(self.arithmetic, Arithmetic::F32 | Arithmetic::Split(_))
    }

    /// c in |computed − exact| ≤ c·2⁻²³·‖x‖·‖y‖ for the values that the core holds.
    ///
    /// Tensor cores may truncate where they add, and each step adds one carried sum to several products:
    /// twice the roundings of f32. Splitting leaves out low·low and what low cannot hold, six units, and
    /// adds three products per coordinate.
    pub fn product_units(&self, dim: usize) -> f64 {
        let dim = dim as f64;
        match self.arithmetic {
            Arithmetic::F32 | Arithmetic::F16 => dim + 4.0,
            Arithmetic::Cooperative(_) => 2.0 * (dim + 8.0),
            Arithmetic::Split(_) => 3.0 * dim + 16.0,
        }
    }

    /// Coordinates per slice of a panel.
    pub fn slice(&self) -> usize {
        match self.arithmetic {
            Arithmetic::F32 | Arithmetic::F16 => 16,
            Arithmetic::Cooperative(_) | Arithmetic::Split(_) => 32,
        }
    }

    fn matrices(&self) -> Option<Matrices> {
        match self.arithmetic {
            Arithmetic::F32 | Arithmetic::F16 => None,
            Arithmetic::Cooperative(matrices) | Arithmetic::Split(matrices) => Some(matrices),
        }
    }

    /// Whether it needs cooperative matrices.
    pub fn is_cooperative(&self) -> bool {
        self.matrices().is_some()
    }

    /// Workgroup memory in bytes.
    fn storage(&self) -> u32 {
        let patch = self.patch as u32;
        if let Some(matrices) = self.matrices() {
            let part_vectors = 16 / matrices.parts() + 1;
            2 * patch * 64 * 10 * 8 + 64 * part_vectors * 16
        } else {
            2 * patch * WORKGROUP * 16
        }
    }

    /// Its text.
    fn text(&self) -> String {
        let patch = ("PATCH", self.patch as u32);
        let Some(matrices) = self.matrices() else {
            let rows = match self.arithmetic {
                Arithmetic::F32 => include_str!("../../../shaders/common/rows_f32.wgsl"),
                _ => include_str!("../../../shaders/common/rows_f16.wgsl"),
            };
            let core = include_str!("../../../shaders/common/product.wgsl");
            return rows.to_owned() + &expand(core, &[patch]);
        };
        let [rows, columns, across] = matrices.shares();
        let parts = matrices.parts();
        let constants = [
            patch,
            ("PARTS", parts),
            ("PART_COLUMNS", 64 / parts),
            ("PLANES", if self.is_full_grade() { 2 } else { 1 }),
            ("SIDE", matrices.side),
            ("SUBGROUP_COLUMNS", across),
            ("SUBGROUP", matrices.subgroup),
            ("MATRIX_ROWS", rows),
            ("MATRIX_COLUMNS", columns / parts),
        ];
        let core = include_str!("../../../shaders/common/product_cooperative.wgsl");
        expand(core, &constants)
    }
}

/// A kernel joined with a core: what a device compiles.
#[derive(Debug, Clone)]
pub struct Shader {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// The core, for a kernel that has one.
    pub core: Option<Core>,
    /// WGSL.
    pub source: String,
    /// Workgroup memory in bytes.
    pub workgroup_storage: u32,
}

impl Shader {
    /// Joins a kernel with a core; one that needs none takes none.
    pub fn new(kernel: &'static Kernel, core: Core) -> Self {
        let core = kernel.on_core.then_some(core);
        Self {
            kernel,
            core,
            source: core.map_or_else(String::new, |core| core.text()) + kernel.text,
            workgroup_storage: core.map_or(0, |core| core.storage()) + kernel.own_storage,
        }
    }

    /// What it is called in messages.
    pub fn label(&self) -> String {
        match self.core {
            Some(core) => format!("{} ({})", self.kernel.name, core.name()),
            None => self.kernel.name.to_owned(),
        }
    }
}

/// Every shader that any adapter may be given.
pub fn variants() -> Vec<Shader> {
    let mut arithmetics = vec![Arithmetic::F32, Arithmetic::F16];
    for side in [8, 16] {
        for subgroup in [4, 8, 16, 32, 64, 128] {
            let matrices = Matrices { side, subgroup };
            if matrices.divide_a_tile() {
                arithmetics.push(Arithmetic::Cooperative(matrices));
                arithmetics.push(Arithmetic::Split(matrices));
            }
        }
    }
    let cores = arithmetics
        .into_iter()
        .flat_map(|arithmetic| [1, 2].map(|patch| Core { arithmetic, patch }));
    let (on_core, alone): (Vec<&Kernel>, Vec<&Kernel>) =
        KERNELS.iter().partition(|kernel| kernel.on_core);
    cores
        .flat_map(|core| on_core.iter().map(move |kernel| Shader::new(kernel, core)))
        .chain(alone.iter().map(|kernel| Shader::new(kernel, Core::PLAIN)))
        .collect()
}

/// Replaces `$NAME` by constants, and repeats what stands between `#for i in NAME` and `#end` with `$i`
/// counting from 0. Compilers keep sums in registers only where they are named one by one.
///
/// # Panics
/// If a name is unknown or a repetition has no end.
fn expand(text: &str, constants: &[(&str, u32)]) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_prefix("#for ") else {
            out.push_str(&replaced(line, constants));
            out.push('\n');
            continue;
        };
        let (name, count) = head.split_once(" in ").expect("#for NAME in COUNT");
        let &(_, count) = constants
            .iter()
            .find(|(n, _)| *n == count)
            .expect("a constant");
        let mut body = String::new();
        let mut depth = 1;
        for line in lines.by_ref() {
            depth += i32::from(line.starts_with("#for ")) - i32::from(line == "#end");
            if depth == 0 {
                break;
            }
            body.push_str(line);
            body.push('\n');
        }
        assert_eq!(depth, 0, "#for {head} without #end");
        for i in 0..count {
            let with_index: Vec<_> = constants.iter().copied().chain([(name, i)]).collect();
            out.push_str(&expand(&body, &with_index));
        }
    }
    out
}

/// A line with the constants that are known; longer names first, so that none is a part of another.
fn replaced(line: &str, constants: &[(&str, u32)]) -> String {
    let mut constants = constants.to_vec();
    constants.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    constants
        .iter()
        .fold(line.to_owned(), |line, (name, value)| {
            line.replace(&format!("${name}"), &value.to_string())
        })
}

/// Defines the Rust twin of a WGSL uniform struct and lists its members.
macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($field),
                offset: core::mem::offset_of!($name, $field),
                size: size_of::<$type>(),
            },)*];
        }
    };
}

params! {
    /// Parameters of `pair_histogram`.
    PairHistogramParams {
        /// Slices of 16 coordinates.
        slices: u32,
        /// Rows of x.
        x_rows: u32,
        /// Rows of y.
        y_rows: u32,
        /// First tile of x.
        x_first: u32,
        /// First tile of y.
        y_first: u32,
        /// End of the tiles of y.
        y_end: u32,
        /// Tile of x where the band begins.
        band_first: u32,
        /// Tiles of y in the block.
        y_tiles: u32,
        /// Tiles of y per workgroup.
        strip: u32,
        /// Whether x and y are the same rows.
        diagonal: u32,
        /// Workgroups along y.
        strips: u32,
        /// Padding.
        pad_0: u32,
    }
}

params! {
    /// Parameters of `pair_histogram_total`.
    PairHistogramTotalParams {
        /// Workgroups whose counts are added.
        workgroups: u32,
        /// How many of them one workgroup adds.
        span: u32,
        /// Padding.
        pad_0: u32,
        /// Padding.
        pad_1: u32,
    }
}

params! {
    /// Parameters of `pair_sums`.
    PairSumsParams {
        /// Slices of 16 coordinates.
        slices: u32,
        /// First product tile of x.
        x_first: u32,
        /// First product tile of y.
        y_first: u32,
        /// Product tile of x where the band begins.
        band_first: u32,
        /// Sum tiles along x.
        x_sum_tiles: u32,
        /// Sum tiles along y.
        y_sum_tiles: u32,
        /// Sum tiles of x in the band.
        band_sum_tiles: u32,
        /// Side of a sum tile.
        side: u32,
        /// RBF kernels.
        rbf: u32,
        /// Kernels.
        kernels: u32,
        /// Whether x and y are the same rows.
        diagonal: u32,
        /// Whether row sums are wanted.
        row_sums: u32,
        /// Where y's row sums begin.
        y_rows_at: u32,
        /// γ of the widest kernel.
        gamma: f32,
        /// Padding.
        pad_0: u32,
        /// Padding.
        pad_1: u32,
        /// Offsets of kernel slots 0 to 3.
        offsets_low: [f32; 4],
        /// Offsets of kernel slots 4 to 7.
        offsets_high: [f32; 4],
        /// 1 in the slot whose row sums are wanted.
        row_kernel_low: [f32; 4],
        /// 1 in the slot whose row sums are wanted.
        row_kernel_high: [f32; 4],
    }
}

params! {
    /// Parameters of `nearest`.
    NearestParams {
        /// Slices of 16 coordinates.
        slices: u32,
        /// Queries.
        x_rows: u32,
        /// Base rows.
        y_rows: u32,
        /// First tile of x.
        x_first: u32,
        /// First tile of y.
        y_first: u32,
        /// Tile of x where the band begins.
        band_first: u32,
        /// Base rows per bin.
        width: u32,
        /// Bins per query.
        bins: u32,
    }
}

params! {
    /// Parameters of `nearest_rescore`.
    NearestRescoreParams {
        /// Slices of 16 coordinates.
        slices: u32,
        /// First query of the band.
        x_first: u32,
        /// Queries in the band.
        queries: u32,
        /// Queries per row of the grid.
        grid_width: u32,
        /// Base rows per bin.
        width: u32,
        /// Bins per query.
        bins: u32,
        /// Entries that there is room for.
        capacity: u32,
        /// Padding.
        pad_0: u32,
    }
}

params! {
    /// Parameters of `gram`.
    GramParams {
        /// Panels of 64 rows.
        panels: u32,
        /// Columns of x.
        x_dim: u32,
        /// Columns of y.
        y_dim: u32,
        /// Columns of x in the panels.
        x_padded: u32,
        /// Columns of y in the panels.
        y_padded: u32,
        /// First tile of x's columns.
        x_first: u32,
        /// First tile of y's columns.
        y_first: u32,
        /// Tile of x's columns where the band begins.
        band_first: u32,
        /// 0.
        zero: u32,
        /// Padding.
        pad_0: u32,
        /// Padding.
        pad_1: u32,
        /// Padding.
        pad_2: u32,
    }
}

params! {
    /// Parameters of `project`.
    ProjectParams {
        /// Slices of 16 coordinates.
        slices: u32,
        /// Rows of x.
        x_rows: u32,
        /// Rows of w.
        y_rows: u32,
        /// First tile of x.
        x_first: u32,
        /// First tile of w.
        y_first: u32,
        /// Tile of x where the band begins.
        band_first: u32,
        /// Padding.
        pad_0: u32,
        /// Padding.
        pad_1: u32,
    }
}

/// Defines kernels: name, workgroup memory of its own, parameters, bindings after `params`.
macro_rules! kernels {
    ($($constant:ident = $name:literal, $on_core:literal, $own_storage:literal, $params:ident,
        [$($binding:literal: $access:ident),* $(,)?];)*) => {
        $(
            /// The kernel of that name.
            pub static $constant: Kernel = Kernel {
                name: $name,
                text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
                on_core: $on_core,
                own_storage: $own_storage,
                bindings: &[("params", Uniform), $(($binding, $access)),*],
                params: $params::FIELDS,
                params_size: size_of::<$params>(),
            };
        )*

        /// Every kernel.
        pub static KERNELS: &[&Kernel] = &[$(&$constant),*];
    };
}

kernels! {
    PAIR_HISTOGRAM = "pair_histogram", true, 8192, PairHistogramParams,
        ["x_panels": Read, "y_panels": Read, "strips": Write, "statistics": Write];
    PAIR_HISTOGRAM_TOTAL = "pair_histogram_total", false, 0, PairHistogramTotalParams,
        ["strips": Read, "counts": Write];
    PAIR_SUMS = "pair_sums", true, 0, PairSumsParams,
        [
            "x_panels": Read, "y_panels": Read, "x_sq_norms": Read, "y_sq_norms": Read,
            "x_groups": Read, "y_groups": Read, "sums": Write, "row_sums": Write,
        ];
    NEAREST = "nearest", true, 0, NearestParams,
        ["x_panels": Read, "y_panels": Read, "maxima": Write];
    NEAREST_RESCORE = "nearest_rescore", false, 8208, NearestRescoreParams,
        [
            "x_panels": Read, "y_panels": Read, "maxima": Read, "limits": Read,
            "reserved": Write, "survivors": Write, "entries": Write, "scores": Write,
        ];
    GRAM = "gram", false, 8192, GramParams,
        ["x_panels": Read, "y_panels": Read, "products": Write];
    PROJECT = "project", true, 0, ProjectParams,
        ["x_panels": Read, "y_panels": Read, "projected": Write];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_nest_and_constants_are_whole_names() {
        let text = "a$N\n#for i in N\nb$i$NN\n#for j in NN\nc$i$j\n#end\n#end\nd\n";
        let expanded = expand(text, &[("N", 2), ("NN", 1)]);
        assert_eq!(expanded, "a2\nb01\nc00\nb11\nc10\nd\n");
    }

    #[test]
    fn subgroups_share_out_a_tile() {
        for (side, subgroup, expected) in [
            (16, 32, Some([1, 2, 2])),
            (16, 64, Some([2, 2, 2])),
            (16, 16, Some([1, 1, 4])),
            (8, 32, Some([2, 4, 2])),
            (8, 8, Some([1, 2, 4])),
            (16, 8, None),
            (8, 3, None),
        ] {
            let matrices = Matrices { side, subgroup };
            assert_eq!(matrices.divide_a_tile(), expected.is_some(), "{matrices:?}");
            if let Some(expected) = expected {
                let [rows, columns, across] = matrices.shares();
                assert_eq!([rows, columns, across], expected, "{matrices:?}");
                assert_eq!(rows * columns * 256 / subgroup, (64 / side).pow(2));
            }
        }
    }
}
