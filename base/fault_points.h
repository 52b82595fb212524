/*
 * Every fault point, in the order of a day: its name, the roles in which it is visited, and what has just happened there.
 * Roles are the verbs of triaged and triage-sim; `database` points are not in our code but in the transaction that changes
 * this table in this way. tests/support/fault_points.py reads this file, visits each point in each role with SIGKILL, and
 * compares totals afterwards.
 */
/* clang-format off */
#define FAULT_POINTS(POINT) \
    /* start and reading the database */ \
    POINT(LOCK_TAKEN,          "run",        "the state folder is locked") \
    POINT(POOL_OPENED,         "run",        "the pool is mapped") \
    POINT(DATABASE_REACHED,    "run",        "the database answers") \
    POINT(MIGRATED,            "run",        "the database has this program's version") \
    POINT(STATE_RESTORED,      "run",        "numbers, champion and queue of the run before are read") \
    POINT(SOCKETS_BOUND,       "run",        "feed and control sockets are bound") \
    POINT(POOL_GROWN,          "run",        "the pool has room for the galaxies of a page") \
    POINT(GALAXIES_TAKEN,      "run",        "a page of galaxies is in the pool") \
    POINT(TALLIES_READ,        "run",        "a page of tallies is in the pool") \
    POINT(CURSOR_READ,         "run",        "the vote cursor is read, the pool does not carry it yet") \
    POINT(QUEUE_OFFERED,       "run",        "the queue of the run before is on offer again") \
    /* votes in */ \
    POINT(APPLY_SENT,          "run",        "the database was asked to apply votes") \
    POINT(APPLY_ANSWERED,      "run",        "votes are applied in the database, not in the pool") \
    POINT(TALLY_HALF_TAKEN,    "run",        "the first of them is in the pool") \
    POINT(TALLIES_TAKEN,       "run",        "all of them are in the pool") \
    POINT(STAMP_SET,           "run",        "the pool carries the new cursor") \
    POINT(GALAXY_RETIRED,      "run",        "a galaxy has all its votes, and is still on offer") \
    POINT(GALAXY_RETRACTED,    "run",        "it is off the queue and the feed, the database was not told") \
    /* embedding */ \
    POINT(EMBED_SENT,          "run",        "the worker has images to embed") \
    POINT(EMBED_ANSWERED,      "run",        "the worker has embedded them") \
    POINT(BAD_FLAGGED,         "run",        "a galaxy is out because of its image, the database was not told") \
    POINT(WORKER_OPENED,       "worker",     "the worker is up and has not said so") \
    POINT(JOB_TAKEN,           "worker",     "a job has arrived") \
    POINT(IMAGES_DECODED,      "worker",     "pixels are in the pool") \
    POINT(EMBEDDINGS_STORED,   "worker",     "embeddings are in the pool, perhaps not on the disk") \
    POINT(EMBEDDINGS_ON_DISK,  "worker",     "they are on the disk, their versions are not set") \
    POINT(VERSIONS_SET,        "worker",     "their versions are set") \
    POINT(ANSWER_READY,        "worker",     "a job is done, nobody knows") \
    POINT(ANSWER_SENT,         "worker",     "the answer is on its way") \
    /* the cycle */ \
    POINT(CYCLE_BEGUN,         "run",        "a cycle has its number") \
    POINT(FIT_SENT,            "run",        "the worker has heads to fit") \
    POINT(LABELS_COLLECTED,    "worker",     "labelled galaxies are listed") \
    POINT(HEADS_FITTED,        "worker",     "heads are fitted, in memory") \
    POINT(MODEL_JUDGED,        "worker",     "the gate has decided") \
    POINT(MODEL_SAVED,         "worker",     "the model file is there") \
    POINT(FIT_ANSWERED,        "run",        "the daemon knows of the model") \
    POINT(MODEL_SENT,          "run",        "the database was told of the model") \
    POINT(CHAMPION_WRITTEN,    "run",        "the champion file names the model") \
    POINT(CHAMPION_ANNOUNCED,  "run",        "feed and database were told of the champion") \
    POINT(MODELS_PRUNED,       "run",        "old models are deleted") \
    POINT(LEASES_EXPIRED,      "run",        "what was on offer too long is off the queue") \
    POINT(RANK_SENT,           "run",        "the worker has the pool to rank") \
    POINT(SCORES_STORED,       "worker",     "a block of scores is in the pool") \
    POINT(GALAXIES_CHOSEN,     "worker",     "galaxies are chosen, nobody knows") \
    POINT(RANK_ANSWERED,       "run",        "the daemon has the choice, the queue is the old one") \
    POINT(QUEUE_CHOSEN,        "run",        "the queue is new in memory alone") \
    POINT(QUEUE_SENT,          "run",        "the database was asked to record the queue") \
    POINT(QUEUE_RECORDED,      "run",        "the queue is recorded, not published") \
    POINT(FEED_HALF_PUBLISHED, "run",        "the feed has said what leaves the queue, not what joins it") \
    POINT(FEED_PUBLISHED,      "run",        "the queue is published") \
    POINT(MARK_SENT,           "run",        "the database was told of the publication") \
    POINT(CYCLE_MARKED,        "run",        "the cycle is over") \
    /* files that are replaced as a whole: champion and the like, models */ \
    POINT(FILE_CREATED,        "run worker", "the temporary file is empty") \
    POINT(FILE_WRITTEN,        "run worker", "it is written, perhaps not on the disk") \
    POINT(FILE_SYNCED,         "run worker", "it is on the disk under its temporary name") \
    POINT(FILE_RENAMED,        "run worker", "it is in place, perhaps not for good") \
    /* platform and catalogue */ \
    POINT(IMPORT_STAGED,       "import",     "the catalogue's rows are staged") \
    POINT(IMPORT_MOVED,        "import",     "galaxies are in, not committed") \
    POINT(IMPORT_COMMITTED,    "import",     "galaxies are in for good, nobody was told") \
    POINT(VOTES_MOVED,         "votes",      "a part of a file's votes is in, with its place in the file, not committed") \
    POINT(VOTES_COMMITTED,     "votes",      "it is in for good, nobody was told") \
    POINT(BALLOT_TAKEN,        "platform",   "a volunteer's answers are given, not delivered") \
    POINT(BALLOT_DELIVERED,    "platform",   "they are delivered, the platform has not noted it") \
    POINT(FEED_FOLLOWED,       "platform",   "a message of the feed is taken in") \
    /* inside transactions of the database */ \
    POINT(VOTE_INSERT,         "database",   "INSERT ON triage.vote") \
    POINT(QUARANTINE_INSERT,   "database",   "INSERT ON triage.quarantine") \
    POINT(LEDGER_INSERT,       "database",   "INSERT ON triage.voter_ledger") \
    POINT(TALLY_INSERT,        "database",   "INSERT ON triage.tally") \
    POINT(ROOT_VOTES_UPDATE,   "database",   "UPDATE ON triage.galaxy") \
    POINT(CURSOR_UPDATE,       "database",   "UPDATE ON triage.cursor") \
    POINT(MODEL_INSERT,        "database",   "INSERT ON triage.model") \
    POINT(CHAMPION_INSERT,     "database",   "INSERT ON triage.champion_event") \
    POINT(CYCLE_INSERT,        "database",   "INSERT ON triage.cycle") \
    POINT(QUEUE_DELETE,        "database",   "DELETE ON triage.queue") \
    POINT(QUEUE_INSERT,        "database",   "INSERT ON triage.queue") \
    POINT(CYCLE_UPDATE,        "database",   "UPDATE ON triage.cycle") \
    /* the trunk */ \
    POINT(TRAINING_BEGUN,      "run",        "a trunk is to be taught") \
    POINT(LABELS_KEPT,         "worker",     "the labels it is taught on are kept") \
    POINT(SLICE_TRAINED,       "worker",     "a slice of training is done, in memory") \
    POINT(SLICE_SAVED,         "worker",     "it is in the checkpoint") \
    POINT(TRUNK_WRITTEN,       "worker",     "the trunk is taught and written") \
    POINT(SLICE_ANSWERED,      "run",        "the daemon knows of the slice") \
    POINT(TRUNK_JUDGED,        "run",        "the gate has decided about the trunk, nothing has changed")
/* clang-format on */
