//! The shaders as Rust sees them: source, buffers and parameters of each, one table row per shader.

use bytemuck::{Pod, Zeroable};

/// Invocations of every workgroup.
pub const WORKGROUP: u32 = 256;

/// Workgroup memory that the shaders need, in bytes: what every WebGPU device has.
pub const WORKGROUP_STORAGE: u32 = 16_384;

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

/// A shader. Its file stem, its entry point, the operation and the method have one name.
#[derive(Debug, Clone, Copy)]
pub struct Shader {
    /// The entry point.
    pub name: &'static str,
    /// WGSL, common parts in front.
    pub source: &'static str,
    /// Name and access of the buffers in group 0, in the order of their bindings.
    pub bindings: &'static [(&'static str, Access)],
    /// Members of the parameter struct.
    pub params: &'static [Field],
    /// Its size in bytes.
    pub params_size: usize,
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

/// The text of a shader file, the product core in front.
macro_rules! with_product {
    ($file:literal) => {
        concat!(
            include_str!("../../../shaders/common/product.wgsl"),
            include_str!(concat!("../../../shaders/", $file))
        )
    };
}

/// Every shader.
pub const SHADERS: [Shader; 5] = [
    Shader {
        name: "pair_histogram",
        source: with_product!("pair_histogram.wgsl"),
        bindings: &[
            ("params", Uniform),
            ("x_panels", Read),
            ("y_panels", Read),
            ("counts", Write),
            ("statistics", Write),
        ],
        params: PairHistogramParams::FIELDS,
        params_size: size_of::<PairHistogramParams>(),
    },
    Shader {
        name: "pair_sums",
        source: with_product!("pair_sums.wgsl"),
        bindings: &[
            ("params", Uniform),
            ("x_panels", Read),
            ("y_panels", Read),
            ("x_sq_norms", Read),
            ("y_sq_norms", Read),
            ("x_groups", Read),
            ("y_groups", Read),
            ("sums", Write),
            ("row_sums", Write),
        ],
        params: PairSumsParams::FIELDS,
        params_size: size_of::<PairSumsParams>(),
    },
    Shader {
        name: "nearest",
        source: with_product!("nearest.wgsl"),
        bindings: &[
            ("params", Uniform),
            ("x_panels", Read),
            ("y_panels", Read),
            ("maxima", Write),
        ],
        params: NearestParams::FIELDS,
        params_size: size_of::<NearestParams>(),
    },
    Shader {
        name: "gram",
        source: include_str!("../../../shaders/gram.wgsl"),
        bindings: &[
            ("params", Uniform),
            ("x_panels", Read),
            ("y_panels", Read),
            ("products", Write),
        ],
        params: GramParams::FIELDS,
        params_size: size_of::<GramParams>(),
    },
    Shader {
        name: "project",
        source: with_product!("project.wgsl"),
        bindings: &[
            ("params", Uniform),
            ("x_panels", Read),
            ("y_panels", Read),
            ("projected", Write),
        ],
        params: ProjectParams::FIELDS,
        params_size: size_of::<ProjectParams>(),
    },
];
