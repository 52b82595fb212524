/*
 * Nets once more in plain loops and double precision, straight from the layer table (model/net.h): the oracle
 * of the conformance suite. Keeps the output of every layer of the whole batch. Slow. No heads: head_fit and
 * head_score are NULL, see reference_heads.h.
 */
#ifndef TRIAGE_TESTS_REFERENCE_BACKEND_H
#define TRIAGE_TESTS_REFERENCE_BACKEND_H

#include "model/backend.h"

extern const struct backend backend_reference;

#endif
