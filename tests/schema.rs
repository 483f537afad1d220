//! The JSON Schema of `result.json` and of `--format json`, generated from the types and committed.

use std::path::Path;

use schemars::schema_for;
use vecdrift::audit::{Audit, AuditConfig};
use vecdrift::evaluate::Evaluation;
use vecdrift::evaluate::compare::Comparison;
use vecdrift::metrics::adapter::Alignment;
use vecdrift::metrics::cosine::CosineDistribution;
use vecdrift::metrics::mmd::Mmd;
use vecdrift::metrics::overlap::Overlap;
use vecdrift::metrics::series::Series;
use vecdrift::output::Output;

/// Compares with the committed file; with `VECDRIFT_BLESS=1` writes it.
fn check(name: &str, schema: &schemars::Schema) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/schema")
        .join(name);
    let text = serde_json::to_string_pretty(schema).expect("JSON") + "\n";
    if std::env::var_os("VECDRIFT_BLESS").is_some() {
        std::fs::write(&path, &text).expect("the schema is written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == committed,
        "{} is not what the types say; VECDRIFT_BLESS=1 cargo test schema writes it anew",
        path.display()
    );
}

#[test]
fn schemas_are_those_of_the_types() {
    check("align.json", &schema_for!(Alignment));
    check("audit.json", &schema_for!(Output<AuditConfig, Audit>));
    check("compare.json", &schema_for!(Comparison));
    check("cosine.json", &schema_for!(CosineDistribution));
    check("evaluate.json", &schema_for!(Evaluation));
    check("mmd.json", &schema_for!(Mmd));
    check("overlap.json", &schema_for!(Overlap));
    check("series.json", &schema_for!(Series));
}
