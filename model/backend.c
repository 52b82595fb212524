/* What is asked of work whatever computes it; see backend.h. */
#include "model/backend.h"
#include "base/error.h"

int score_request_check(const struct score_request *request)
{
    const struct head_set *heads = request->heads;
    if (heads->answers != request->schema->answers)
        return error_set(ERROR_STATE, "heads with %d answers cannot score schema %s with %d: train a model for it",
                         heads->answers, request->schema->name, request->schema->answers);
    int result = head_set_check_rows(heads, request->views, request->embedding_stride_bytes);
    if (result)
        return result;
    if (request->passes < 1 || request->passes % heads->count || request->passes > INFORMATION_PASSES_MAX)
        return error_set(ERROR_INPUT, "%d passes over %d heads: use a multiple of the heads, at most %d",
                         request->passes, heads->count, INFORMATION_PASSES_MAX);
    if (request->views < 0 || (request->views && request->passes % request->views))
        return error_set(ERROR_INPUT, "%d passes over %d views: use a multiple of the views", request->passes,
                         request->views);
    if (!(heads->dropout >= 0 && heads->dropout < 1))
        return error_set(ERROR_INPUT, "dropout %g is outside 0 <= p < 1", (double)heads->dropout);
    return 0;
}
