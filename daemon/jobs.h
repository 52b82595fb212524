/*
 * The jobs the control process gives to the worker: small JSON messages over the channel; bulk data goes through
 * the pool and the model files. One job at a time. Every message names its job, so an answer to a job that was
 * given up is recognised and dropped.
 *
 *   daemon -> worker
 *     {"job": N, "kind": "embed", "trunk": N, "galaxies": [[key, "path"], ...]}      decode, embed
 *     {"job": N, "kind": "fit", "trunk": N, "number": N, "parent": N, "horizon": "xid"}   train heads, judge, write the model file
 *     {"job": N, "kind": "train", "trunk": N, "from": N, "seconds": S}               a slice of teaching trunk N, which starts from trunk "from"
 *     {"job": N, "kind": "reembed", "trunk": N, "from": N, "first": key, "count": N} the same galaxies by another trunk
 *     {"job": N, "kind": "rank", "trunk": N, "model": N, "cycle": N, "queue_size": N, "kept_holdout": N, "kept_random": N, "kept_active": N}
 *     {"job": N, "kind": "compare", "models": [N, N], "top": N}                      what two stored models think of the same galaxies
 *   worker -> daemon
 *     {"hello": pid, "threads": N, "backend": "cpu"}
 *     {"job": N, "progress": 0..1}                                                   at least every few seconds
 *     {"job": N, "ok": false, "code": N, "message": "..."}
 *     {"job": N, "ok": true, ...}   embed: embedded, bad [[key, "reason"], ...], decode_s, seconds
 *                                   train: over, galaxies, epoch, best_epoch, share, train_loss, validation_loss
 *                                   reembed: embedded
 *                                   fit: labels, trunk, epochs, holdout_nll, champion_nll, constant_nll, train_loss, brier,
 *                                     calibration_error, coverage_80, promoted, reason, seconds;
 *                                        or nothing_labelled and labels, those of the hold-out
 *                                   rank: scored, score_s, choose_s, seconds, selected [[key, "stream", probability], ...],
 *                                     review [[key, "reason", value], ...], retired [key, ...], choice {cold, candidates,
 *                                     refined, outcomes_max, duplicates, crowded, held, kinds}
 *                                   compare: compared, mean_score [2], rank_correlation, top_tenth_shared, questions, moved
 */
#ifndef TRIAGE_DAEMON_JOBS_H
#define TRIAGE_DAEMON_JOBS_H

#define JOB_MESSAGE_BYTES_MAX (8 << 20)
#define TRUNK_FIRST           1 /* number of the trunk made or imported when the pool was first embedded */

#endif
