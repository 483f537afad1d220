//! Snapshots over time, from their sketches: how far each is from the first and from the one before, what is
//! out of line with history, and where the series changes.

use schemars::JsonSchema;
use serde::Serialize;

use super::mmd::EquivalenceState;
use super::sketch::{Kinship, MeanEmbedding, Sketch, SketchMmd, kinship, mean_mmd2};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::stats::control::{self, Limit, Rule, ewma};
use crate::stats::paired::mean;
use crate::stats::segmentation::{self, change_points};

/// Orders of the snapshots that the change points are tested against.
const ORDERS: u32 = 999;

/// Share of ids that neighbouring snapshots may have in common and still be taken for exchangeable.
const MOST_KEPT: f64 = 0.05;

/// Level of the test for change points.
const LEVEL: f64 = 0.05;

/// Clusters listed per series.
const LISTED_CLUSTERS: usize = 8;

/// How a series is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesConfig {
    /// Sign draws of each test.
    pub draws: u32,
    /// Seed of the orders.
    pub seed: u64,
    /// Largest `eps_eq` that counts as none.
    pub margin: f64,
    /// The first so many comparisons are in control and set the limits; `None`: all but the last.
    pub in_control: Option<usize>,
}

/// Result of [`series`].
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Series {
    /// The snapshots, in order; the first is the baseline.
    pub snapshots: Vec<Snapshot>,
    /// What all of them are measured in.
    pub frame: FrameFacts,
    /// Control chart of the effects against the baseline.
    pub baseline_chart: ControlChart,
    /// Control chart of the effects against the snapshot before.
    pub previous_chart: ControlChart,
    /// Where the series changes.
    pub changes: Changes,
    /// Clusters of the baseline whose shares moved most between the first and the last snapshot.
    pub clusters: Vec<ClusterShares>,
    /// Unbiased MMD² of every two snapshots, T × T; `null` where they are in different spaces.
    pub mmd2: Vec<Vec<Option<f64>>>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// What the sketches of a series share.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FrameFacts {
    /// σ of the base kernel, of the middle of three (2σ, σ, σ/2).
    pub bandwidth: f64,
    /// Random frequencies that stand for each kernel.
    pub frequencies: usize,
    /// Blocks of ids.
    pub blocks: usize,
    /// M2: median MMD² of a cluster of the baseline against its others.
    pub cluster_mmd2: Option<f64>,
    /// Clusters of the baseline.
    pub clusters: usize,
    /// Column that rows belong together by.
    pub group: Option<String>,
}

/// One snapshot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Snapshot {
    /// What it is called.
    pub name: String,
    /// Rows behind its sketch.
    pub rows: u64,
    /// Rows left out: null, zero or not finite.
    pub excluded_rows: u64,
    /// Length of the mean vector ÷ root mean square length of rows, in [0, 1]: how far all point one way.
    pub mean_resultant: f64,
    /// Against the baseline; `null` for the baseline.
    pub baseline: Option<Step>,
    /// Against the snapshot before; `null` for the baseline.
    pub previous: Option<Step>,
    /// Σ `eps_eq` of all steps so far: the way gone, where `baseline` is how far away it led. `null` after a
    /// step that has no effect.
    pub path: Option<f64>,
}

/// Two snapshots compared.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Step {
    /// Ids and space that they have in common.
    pub kinship: Kinship,
    /// How far their distributions are apart; `null` where they are in different spaces.
    pub mmd: Option<SketchMmd>,
    /// Whether the effect is below or above the margin, by its 95 % interval.
    pub state: EquivalenceState,
}

impl Step {
    fn eps_eq(&self) -> Option<f64> {
        self.mmd.as_ref()?.effect.eps_eq
    }
}

/// A control chart: limits from the snapshots in control, and the ones outside.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ControlChart {
    /// How the limit was found: `median_mad` from 20 values on, `prediction` from 8, `null` of fewer.
    pub rule: Option<String>,
    /// Comparisons that set it.
    pub in_control: usize,
    /// `eps_eq` above this is out of control. The chart is of ln(`eps_eq` + `floor`).
    pub upper: Option<f64>,
    /// Added before the logarithm: median effect that chance alone gives.
    pub floor: Option<f64>,
    /// Exponentially weighted moving average, as an effect, per snapshot after the baseline; from 20 values on.
    pub ewma: Option<Vec<f64>>,
    /// Its upper limit, likewise.
    pub ewma_upper: Option<Vec<f64>>,
    /// Names of the snapshots above a limit.
    pub out_of_control: Vec<String>,
    /// What is missing, and why.
    pub note: Option<String>,
}

/// Change points of a series.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Changes {
    /// The changes, in order.
    pub points: Vec<ChangePoint>,
    /// How often a random order of the snapshots has changes that stand out as much; `null` with fewer than 8
    /// snapshots, and where neighbouring ones share so many rows that their order is not random without a change.
    pub p_value: Option<f64>,
    /// What is missing, and why.
    pub note: Option<String>,
}

/// A change point.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChangePoint {
    /// Position of the first snapshot after it.
    pub position: usize,
    /// Its name.
    pub snapshot: String,
    /// The run of snapshots before against the run from here on, each snapshot with equal weight.
    pub effect: SketchMmd,
}

/// A cluster's share over time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ClusterShares {
    /// Number of the cluster in the frame.
    pub cluster: usize,
    /// Id of the baseline's landmark nearest to its centroid.
    pub medoid: String,
    /// Share of rows per snapshot.
    pub shares: Vec<f64>,
}

/// Compares the snapshots of a series.
///
/// All sketches must be in the first one's frame. Effects are those of [`SketchMmd`]; the interval of each holds
/// for itself. Snapshots in another space than the baseline (by landmarks that both have) have no effect and
/// end the way.
///
/// # Errors
/// Fewer than two snapshots, different frames, `in_control` beyond the comparisons there are, or the device
/// fails.
///
/// # Source
/// Arlot, Celisse & Harchaoui 2019 (kernel change points); Lucas & Saccucci 1990 (EWMA).
pub fn series(engine: &Engine, sketches: &[Sketch], config: &SeriesConfig) -> Result<Series> {
    let [first, rest @ ..] = sketches else {
        return Err(Error::input("series", "no snapshot, expected two or more"));
    };
    if rest.is_empty() {
        return Err(Error::input("series", "one snapshot, expected two or more"));
    }
    if let Some(n) = config.in_control
        && n > rest.len()
    {
        return Err(Error::input(
            "--in-control",
            format!(
                "{n}, expected at most {}: one per snapshot after the first",
                rest.len()
            ),
        ));
    }
    let frame = &first.state.frame;
    for sketch in rest {
        if sketch.state.frame != *frame {
            return Err(Error::input(
                &sketch.state.name,
                format!(
                    "its sketch has another frame than that of {}",
                    first.state.name
                ),
            )
            .hint("sketch it again: vecdrift sketch INPUT --like FIRST --out FILE"));
        }
    }
    let means: Vec<MeanEmbedding> = sketches
        .iter()
        .map(|s| MeanEmbedding::new(&s.state))
        .collect();
    let step = |from: usize, to: usize| -> Result<Step> {
        let kinship = kinship(engine, &sketches[from], &sketches[to])?;
        let mmd = kinship.shares_coordinates().then(|| {
            let sizes = [from, to].map(|i| sketches[i].state.rows);
            SketchMmd::of_means(&means[from], &means[to], frame, sizes, config.draws)
        });
        Ok(Step {
            state: state(mmd.as_ref(), config.margin),
            kinship,
            mmd,
        })
    };
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for (i, sketch) in sketches.iter().enumerate() {
        let (baseline, previous) = match i {
            0 => (None, None),
            1 => {
                let step = step(0, 1)?;
                (Some(step.clone()), Some(step))
            }
            _ => (Some(step(0, i)?), Some(step(i - 1, i)?)),
        };
        let path = match (&previous, snapshots.last()) {
            (Some(step), Some(before)) => before.path.zip(step.eps_eq()).map(|(a, b)| a + b),
            _ => Some(0.0),
        };
        let state = &sketch.state;
        snapshots.push(Snapshot {
            name: state.name.clone(),
            rows: state.rows,
            excluded_rows: state.excluded_rows,
            mean_resultant: mean_resultant(&state.mean, &state.variance),
            baseline,
            previous,
            path,
        });
    }
    let in_control = config.in_control.unwrap_or(rest.len() - 1);
    let same_space: Vec<bool> = snapshots
        .iter()
        .map(|s| s.baseline.as_ref().is_none_or(|step| step.mmd.is_some()))
        .collect();
    let (mmd2, kernels) = mean_mmd2(&means);
    let t = means.len();
    let mut notes = Vec::new();
    if frame.cluster_mmd2.is_none() {
        notes.push(format!(
            "{} has no clusters apart from each other, so effects have no unit and are not given",
            first.state.name
        ));
    }
    let strangers: Vec<&str> = snapshots
        .iter()
        .zip(&same_space)
        .filter(|(_, same)| !**same)
        .map(|(s, _)| s.name.as_str())
        .collect();
    if !strangers.is_empty() {
        notes.push(format!(
            "in another space than {}, so no distance means anything: {}",
            first.state.name,
            strangers.join(", ")
        ));
    }
    Ok(Series {
        baseline_chart: chart(&snapshots, in_control, |s| s.baseline.as_ref()),
        previous_chart: chart(&snapshots, in_control, |s| s.previous.as_ref()),
        changes: changes(sketches, &snapshots, &means, &kernels, &same_space, config),
        clusters: cluster_shares(sketches),
        mmd2: (0..t)
            .map(|i| {
                (0..t)
                    .map(|j| (same_space[i] && same_space[j]).then(|| mmd2[i * t + j]))
                    .collect()
            })
            .collect(),
        frame: FrameFacts {
            bandwidth: frame.bandwidth,
            frequencies: frame.frequencies,
            blocks: frame.blocks,
            cluster_mmd2: frame.cluster_mmd2,
            clusters: frame.clusters(),
            group: frame.group.clone(),
        },
        snapshots,
        notes,
    })
}

fn state(mmd: Option<&SketchMmd>, margin: f64) -> EquivalenceState {
    match mmd.and_then(|m| m.effect.ci95) {
        Some([_, high]) if high < margin => EquivalenceState::Equivalent,
        Some([low, _]) if low > margin => EquivalenceState::Shifted,
        _ => EquivalenceState::Undecided,
    }
}

fn mean_resultant(mean: &[f64], variance: &[f64]) -> f64 {
    let square: f64 = mean.iter().map(|m| m * m).sum();
    (square / (square + variance.iter().sum::<f64>())).sqrt()
}

/// The chart of one kind of step.
fn chart<'a>(
    snapshots: &'a [Snapshot],
    in_control: usize,
    of: impl Fn(&'a Snapshot) -> Option<&'a Step>,
) -> ControlChart {
    let mut chart = ControlChart {
        rule: None,
        in_control,
        upper: None,
        floor: None,
        ewma: None,
        ewma_upper: None,
        out_of_control: Vec::new(),
        note: None,
    };
    let steps: Vec<&Step> = snapshots.iter().filter_map(of).collect();
    let effects: Option<Vec<f64>> = steps.iter().map(|step| step.eps_eq()).collect();
    let floors: Option<Vec<f64>> = steps
        .iter()
        .map(|step| step.mmd.as_ref()?.minimum_detectable)
        .collect();
    let Some((effects, floors)) = effects.zip(floors) else {
        chart.note = Some("no limits: a snapshot has no effect to compare".to_owned());
        return chart;
    };
    let floor = crate::stats::distribution::median(&floors);
    chart.floor = Some(floor);
    if floor == 0.0 {
        chart.note = Some("no limits: no snapshot differs from another".to_owned());
        return chart;
    }
    let values: Vec<f64> = effects.iter().map(|eps| (eps + floor).ln()).collect();
    let history = &values[..in_control];
    let Some(limit) = Limit::new(history) else {
        chart.note = Some(format!(
            "no limits: {in_control} comparisons in control, {} are needed",
            control::LEAST
        ));
        return chart;
    };
    let effect = |value: f64| (value.exp() - floor).max(0.0);
    chart.rule = Some(
        match limit.rule {
            Rule::MedianMad => "median_mad",
            Rule::Prediction => "prediction",
        }
        .to_owned(),
    );
    chart.upper = Some(effect(limit.upper));
    let average = ewma(history, &values);
    for (i, snapshot) in snapshots[1..].iter().enumerate().skip(in_control) {
        let drifted = average.as_ref().is_some_and(|a| a.values[i] > a.upper[i]);
        if values[i] > limit.upper || drifted {
            chart.out_of_control.push(snapshot.name.clone());
        }
    }
    if let Some(average) = average {
        chart.ewma = Some(average.values.into_iter().map(effect).collect());
        chart.ewma_upper = Some(average.upper.into_iter().map(effect).collect());
    }
    chart
}

/// Change points, of snapshots that are all in one space.
fn changes(
    sketches: &[Sketch],
    snapshots: &[Snapshot],
    means: &[MeanEmbedding],
    kernels: &[f64],
    same_space: &[bool],
    config: &SeriesConfig,
) -> Changes {
    let none = |note: String| Changes {
        points: Vec::new(),
        p_value: None,
        note: Some(note),
    };
    if same_space.contains(&false) {
        return none("not looked for: snapshots are in different spaces".to_owned());
    }
    let t = means.len();
    let Some(found) = change_points(kernels, t, ORDERS, config.seed) else {
        return none(format!(
            "not looked for: {t} snapshots, {} are needed",
            segmentation::LEAST
        ));
    };
    let kept: Vec<f64> = snapshots
        .iter()
        .filter_map(|s| s.previous.as_ref()?.kinship.kept)
        .collect();
    let exchangeable = kept.iter().all(|&kept| kept <= MOST_KEPT);
    if exchangeable && found.p_value > LEVEL {
        return Changes {
            points: Vec::new(),
            p_value: Some(found.p_value),
            note: None,
        };
    }
    let ends: Vec<usize> = [0].into_iter().chain(found.changes).chain([t]).collect();
    let run = |from: usize, to: usize| {
        let all: Vec<&MeanEmbedding> = means[from..to].iter().collect();
        let rows = sketches[from..to].iter().map(|s| s.state.rows).sum();
        (MeanEmbedding::mean_of(&all), rows)
    };
    let mut points = Vec::new();
    for window in ends.windows(3) {
        let (before, after) = (run(window[0], window[1]), run(window[1], window[2]));
        let frame = &sketches[0].state.frame;
        let effect = SketchMmd::of_means(
            &before.0,
            &after.0,
            frame,
            [before.1, after.1],
            config.draws,
        );
        // Where the order has no test, a change must stand on its own.
        if exchangeable || effect.effect.ci95.is_some_and(|[low, _]| low > 0.0) {
            points.push(ChangePoint {
                position: window[1],
                snapshot: snapshots[window[1]].name.clone(),
                effect,
            });
        }
    }
    Changes {
        points,
        p_value: exchangeable.then_some(found.p_value),
        note: (!exchangeable).then(|| {
            format!(
                "neighbouring snapshots share {:.0} % of their ids, so their order has no test; changes whose effect is above 0 are listed",
                100.0 * mean(&kept)
            )
        }),
    }
}

fn cluster_shares(sketches: &[Sketch]) -> Vec<ClusterShares> {
    let first = &sketches[0];
    let frame = &first.state.frame;
    let share = |sketch: &Sketch, cluster: usize| {
        sketch.state.cluster_rows[cluster] as f64 / sketch.state.rows as f64
    };
    let moved = |cluster: usize| {
        (share(&sketches[sketches.len() - 1], cluster) - share(first, cluster)).abs()
    };
    let mut order: Vec<usize> = (0..frame.clusters()).collect();
    order.sort_by(|&a, &b| moved(b).total_cmp(&moved(a)));
    order.truncate(LISTED_CLUSTERS);
    order
        .into_iter()
        .map(|cluster| ClusterShares {
            cluster,
            medoid: first
                .nearest_landmark(&frame.centroids[cluster * frame.dim..][..frame.dim])
                .to_owned(),
            shares: sketches.iter().map(|s| share(s, cluster)).collect(),
        })
        .collect()
}
