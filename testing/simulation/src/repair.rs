//! Repairs the log of an ended run, as any process that finds it does.

use baton_protocol::RunId;
use baton_run_log::{RepairError, repair_end};
use baton_store::EndedRun;

use crate::executor::ProcessId;
use crate::ledger::tenant;
use crate::world::Sim;

impl Sim {
    pub(crate) async fn repair_end(
        &self,
        process: ProcessId,
        run: RunId,
        ended: &EndedRun,
    ) -> Result<(), RepairError> {
        let outside = self.outside(process);
        let repaired = repair_end(&outside, &outside, self.date(), tenant(), run, ended);
        repaired.await.map(drop)
    }
}
