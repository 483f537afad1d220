//! A sketch for a reference: what last year's audit kept of vectors that are gone.
//!
//! Its landmarks are the rows whose ids hash lowest. The rows of current below the same hash are the same
//! kind of sample, so every measure of an audit holds for the two samples; the shift of the distribution is
//! taken from the sketches of all rows.

use schemars::JsonSchema;
use serde::Serialize;

use super::AuditConfig;
use crate::embeddings::Embeddings;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::sketch::{Frame, FrameConfig, Kinship, LANDMARKS, Sketch, SketchMmd, kinship};

/// What the sketches say of all rows.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Sketched {
    /// Rows that the reference had when it was sketched.
    pub reference_rows: u64,
    /// Rows of it that the sketch kept: those that all other measures of this audit are of.
    pub reference_landmarks: u64,
    /// Rows of current.
    pub current_rows: u64,
    /// Rows of current below the same hash: likewise.
    pub current_sampled: u64,
    /// Ids and space in common.
    pub kinship: Kinship,
    /// How far the distributions are apart; null in different spaces.
    pub mmd: Option<SketchMmd>,
}

impl Sketched {
    /// What this audit is of.
    pub(super) fn warning(&self) -> String {
        format!(
            "the reference is a sketch of {} rows: the shift of the distribution is measured from all of them, all else on the {} that it kept and the {} of current's {} rows that hash alike",
            self.reference_rows, self.reference_landmarks, self.current_sampled, self.current_rows
        )
    }
}

/// Refuses what a sketch cannot answer.
pub(super) fn check(old: &Sketch, config: &AuditConfig) -> Result<()> {
    let refuse = |option: &str, fact: &str| {
        Err(Error::input(option, fact)
            .hint("audit two sets of embeddings, or follow sketches with vecdrift series"))
    };
    if old.state.frame.group.is_some() {
        return refuse(
            &config.reference,
            "is a sketch made with --group, whose landmarks an audit cannot tell apart by group",
        );
    }
    if config.group.is_some() {
        return refuse("--group", "the reference is a sketch made without it");
    }
    if !config.slice_by.is_empty() {
        return refuse(
            "--slice-by",
            "the reference is a sketch, which holds no columns",
        );
    }
    if config.text.is_some() {
        return refuse(
            "--text",
            "the reference is a sketch, which holds no columns",
        );
    }
    Ok(())
}

/// Compares a sketch with all of current, and draws the rows of current that its landmarks answer to.
pub(super) fn against(
    engine: &Engine,
    old: &Sketch,
    current: Embeddings,
    config: &AuditConfig,
) -> Result<(Sketched, Sketch, Embeddings)> {
    let new = Sketch::new(engine, &current, &old.state.frame)?;
    let kinship = kinship(engine, old, &new)?;
    let mmd = if kinship.shares_coordinates() {
        Some(SketchMmd::new(old, &new, config.permutations)?)
    } else {
        None
    };
    let drawn = match old.hash_limit() {
        None => current,
        Some(limit) => current.hashed_up_to(limit, old.state.frame.seed)?,
    };
    let sketched = Sketched {
        reference_rows: old.state.rows,
        reference_landmarks: old.ids.len() as u64,
        current_rows: new.state.rows,
        current_sampled: drawn.len() as u64,
        kinship,
        mmd,
    };
    Ok((sketched, new, drawn))
}

/// A sketch of current for the next audit, in a frame of its own.
pub(super) fn afresh(
    engine: &Engine,
    current: &Embeddings,
    config: &AuditConfig,
) -> Result<Sketch> {
    let frame = FrameConfig {
        seed: config.seed,
        landmarks: LANDMARKS,
        group: config.group.clone(),
    };
    Sketch::new(engine, current, &Frame::new(engine, current, &frame)?)
}
