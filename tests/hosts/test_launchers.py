import pytest

from nanochat_jax.config.program import Processes
from nanochat_jax.hosts import launchers
from nanochat_jax.hosts.launchers import Place, find, gpus_of

# What `srun` of two nodes with eight tasks each gives its twelfth task, as far as it matters here.
SRUN = {
    "SLURM_JOB_ID": "77", "SLURM_NTASKS": "16", "SLURM_PROCID": "11", "SLURM_LOCALID": "3",
    "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_NUM_TASKS": "16", "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip


def asked(where="", count=-1, index=-1):
    return Processes(coordinator=where, num_processes=count, process_id=index)


def test_flags_say_everything_whatever_started_the_process():
    assert find(asked("node1:1234", 2, 1), SRUN) == Place("deactivate", "node1:1234", 2, 1)


def test_a_process_without_flags_or_launcher_is_alone():
    assert find(Processes(), {}) is None


@pytest.mark.parametrize("flags", [("node1:1234",), ("", 2), ("", 2, 0), ("node1:1234", -1, 1)])
def test_half_given_flags_are_refused_with_what_is_missing_and_what_to_type(flags):
    names = dict(
        zip(("--coordinator", "--num-processes", "--process-id"), ("", -1, -1), strict=True)
    )
    given = dict(zip(names, (*flags, -1, -1), strict=False))
    missing = [name for name in names if given[name] == names[name]]
    with pytest.raises(ValueError, match="got .* without " + ", ".join(missing)) as error:
        find(asked(*flags), {})
    assert launchers.EXAMPLE in str(error.value)


def test_an_address_without_a_port_and_a_number_out_of_range_are_refused():
    with pytest.raises(ValueError, match="'node1'; expected HOST:PORT"):
        find(asked("node1", 2, 1), {})
    with pytest.raises(ValueError, match="--process-id is 2 of 2 processes; expected 0 to 1"):
        find(asked("node1:1234", 2, 2), {})


def test_a_task_of_slurm_is_one_of_the_tasks_of_its_step():
    assert find(Processes(), SRUN) == Place("slurm", local=3, locals=8)


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_STEP_NUM_TASKS": "1"},  # srun -n 1 within an allocation of 16
        {"SLURM_STEP_NUM_TASKS": None, "SLURM_STEP_NODELIST": None},  # the batch script itself
        {"SLURM_PTY_PORT": "4711"},  # srun --pty bash
    ],
)
def test_one_task_a_batch_script_and_an_interactive_shell_are_alone(changes):
    env = {k: v for k, v in (SRUN | changes).items() if v is not None}
    assert find(Processes(), env) is None


def test_num_processes_1_means_alone_under_a_launcher_too():
    assert find(asked(count=1), SRUN) is None


def test_tasks_of_each_node_are_counted_where_they_differ():
    uneven = {"SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "3", "SLURM_LOCALID": "0"}
    assert find(Processes(), SRUN | uneven) == Place("slurm", local=0, locals=1)


def test_open_mpi_4_is_asked_and_open_mpi_5_says_too_little():
    known = MPI | {"OMPI_MCA_orte_hnp_uri": "1;tcp://10.0.0.1:2"}
    assert find(Processes(), known) == Place("ompi", local=1, locals=2)
    with pytest.raises(ValueError, match="--process-id .OMPI_COMM_WORLD_RANK"):
        find(Processes(), MPI)
    assert find(Processes(), {"OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_a_pod_of_an_indexed_job_asks_its_cluster_and_another_pod_is_alone():
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert find(Processes(), pod) is None
    assert find(Processes(), pod | {"JOB_COMPLETION_INDEX": "0"}) == Place("k8s")


def test_the_tasks_of_a_machine_share_its_gpus_and_one_task_has_all():
    place = lambda local, locals: Place("slurm", local=local, locals=locals)
    assert gpus_of(place(0, 1), 8) == [*range(8)]
    assert gpus_of(place(3, 8), 8) == [3]
    assert gpus_of(place(1, 2), 8) == [4, 5, 6, 7]
    assert gpus_of(place(3, 8), 1) == [0]  # Slurm shows each task its own
    assert gpus_of(place(0, 1), 0) is None  # a CPU
