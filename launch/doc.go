// Package launch runs a job's ranks on this node: one process per GPU, or per CPU rank.
//
// Its one idea: a job is a sequence of attempts, and an attempt is all ranks or none.
//
//	attempt under generation g:  start every rank → wait
//	    all exit 0               → done (0)
//	    all exit 0 or 75         → stopped on a signal, with what was published (75)
//	    one fails                → SIGTERM to its siblings, after Grace SIGKILL, name the first failure,
//	                               pause 1, 2, 4 … 30 s, again under g+1; not after exit code 2, not past
//	                               MaxRestarts, not when three attempts reached no further step
//	    one came too late        → a group of this job is under way without it, in generation h ≥ g: the same, again
//	                               under h, as often as it takes; not if MaxRestarts is 0
//
// A rank is never left behind: it is forked from one OS thread that lives as long as the launcher, with a
// parent-death signal, in its own process group, under a child subreaper, so that a rank's children that
// left the group are adopted here and ended, too. Processes are ended by pid, process group and an exact mark
// in their environment; never by name.
//
// # The environment contract
//
// A rank process learns what it is from its environment, and from there alone; [FromEnv] reads it.
//
//	variable            field        meaning
//	SPLORA_JOB          Job          id of the job, the same on all nodes and in all attempts
//	SPLORA_KEY          Key          base64 of the job's 16, 24 or 32 byte gossip key; never logged, never in argv
//	SPLORA_SEEDS        Seeds        host:port,host:port… of gossip members to join; the own local rank 0 first
//	SPLORA_GOSSIP_PORT  GossipPort   port to bind for gossip, TCP and UDP; 0 = any free one (all but local rank 0)
//	SPLORA_BIND         Bind         address to bind and advertise; 127.0.0.1 on a single node
//	SPLORA_GENERATION   Generation   ≥ 1, grows with each failed attempt; a rank that meets one of a larger one fails
//	SPLORA_ATTEMPT      Attempt      ≥ 1, counts this launcher's attempts
//	SPLORA_RANK         Rank         the wished global rank, stable over restarts; −1 = no wish
//	SPLORA_LOCAL_RANK   LocalRank    0 … LocalSize−1 on this node
//	SPLORA_LOCAL_SIZE   LocalSize    ranks on this node
//	SPLORA_NODE_RANK    NodeRank     0 … nodes−1; −1 = unknown
//	SPLORA_WORLD        WorldMin/Max min:max ranks with which the job may run
//	SPLORA_GPU          GPU          UUID of its GPU, or MIG instance; empty = none
//	SPLORA_ERROR_FILE   ErrorFile    where the rank writes its step and its error, see [Contract.Progress], [Contract.Fail], [Contract.Late]
//
// GOMAXPROCS is set, too, to the rank's share of the node's cores, unless the user has set it.
//
// A rank with a GPU also gets CUDA_VISIBLE_DEVICES, which shows CUDA that GPU alone (as device 0), and for NCCL, unless
// the user has set them:
//
//	NCCL_DEBUG                   WARN
//	NCCL_DEBUG_FILE              LogDir/attempt-K/nccl.HOST.PID; without a LogDir /dev/stderr
//	NCCL_SOCKET_IFNAME           the interface of Bind
//	NCCL_RAS_ADDR                localhost and a free port, one for all ranks of this launcher
//	NCCL_MULTI_RANK_GPU_ENABLE   1, and
//	NCCL_HOSTID                  another one for each rank, where ranks share a GPU: NCCL refuses that otherwise
//
// What a rank owes in return: exit code 0 when done, 2 for wrong usage or configuration (never restarted), 75
// when it stopped on a signal with all that it reached published, anything else for a failure; on SIGTERM, SIGINT,
// SIGHUP, SIGUSR1 or SIGUSR2 a checkpoint and 75. A signal may come twice, from the launcher and from Slurm.
//
// # GPUs
//
// [GPUs] is what the launcher asks of the NVIDIA driver. Before each attempt it looks at all GPUs that CUDA_VISIBLE_DEVICES
// shows, and gives each rank one that can be used ([Survey] has the reasons why one cannot). The rank is forked on the CPUs of
// the NUMA node beside it, and takes its memory from there first. While the ranks run, a fault of the GPU that
// the driver reports ends the attempt, and is its reason; a restart waits until the memory of the GPUs is free again,
// and leaves a GPU that needs a reset for a spare one.
package launch
