/*-------------------------------------------------------------------------
 *
 * sync_test.c
 *	  The plan of a feed alone, without a server: prints TAP.
 *
 * test/run compiles it like planner_test.c.
 *
 *-------------------------------------------------------------------------
 */
#include "planner.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 16
#define MAX_ACTIONS ((size_t) 3 * MAX_ROWS)
#define RANDOM_CASES 20000
#define WAREHOUSE -1

/* ---- TAP ---- */

static void
is_text(const char *got, const char *wanted, const char *expected)
{
	bool		same = strcmp(got, wanted) == 0;

	ok(same, expected);
	if (!same)
		printf("# got    %s\n# wanted %s\n", got, wanted);
}

/* ---- cases ---- */

static AllocPlanKey
key(const char *chars)
{
	AllocPlanKey result = {chars, strlen(chars)};

	return result;
}

/* eta: a day, or WAREHOUSE. */
static AllocPlanTerms
terms(int64_t qty, int32_t eta)
{
	AllocPlanTerms result = {.qty = qty};

	result.in_stock = eta == WAREHOUSE;
	result.eta = result.in_stock ? 0 : eta;
	return result;
}

static AllocPlanFeedRow
row(size_t number, const char *ref, const char *sku, int64_t qty, int32_t eta)
{
	AllocPlanFeedRow result = {key(ref), key(sku), terms(qty, eta), number};

	return result;
}

static AllocPlanPresent
batch(const char *ref, const char *sku, int64_t qty, int32_t eta,
	  int64_t shipped)
{
	AllocPlanPresent result = {key(ref), key(sku), terms(qty, eta), shipped};

	return result;
}

static int
by_feed(const void *a, const void *b)
{
	return alloc_plan_compare_feed(a, b);
}

static int
by_present(const void *a, const void *b)
{
	return alloc_plan_compare_present(a, b);
}

static int
by_action(const void *a, const void *b)
{
	return alloc_plan_compare_actions(a, b);
}

/* Sorts what it is given, plans, and sorts the actions; returns how many. */
static size_t
plan(AllocPlanFeedRow *feed, size_t nfeed, AllocPlanPresent *present,
	 size_t npresent, AllocPlanAction *actions)
{
	AllocPlanSync sync = {.feed = feed,.nfeed = nfeed,.present = present,.npresent = npresent};
	size_t		n = 0;

	if (nfeed > 0)
		qsort(feed, nfeed, sizeof(*feed), by_feed);
	if (npresent > 0)
		qsort(present, npresent, sizeof(*present), by_present);
	while (n < MAX_ACTIONS && alloc_plan_next_action(&sync, &actions[n]))
		n++;
	if (n > 0)
		qsort(actions, n, sizeof(*actions), by_action);
	return n;
}

/* ---- actions in words ---- */

static void
add_terms(char *words, size_t size, const char *before,
		  const AllocPlanTerms *of)
{
	size_t		used = strlen(words);

	if (of->in_stock)
		snprintf(words + used, size - used, "%s%lld", before,
				 (long long) of->qty);
	else
		snprintf(words + used, size - used, "%s%lld@%d", before,
				 (long long) of->qty, (int) of->eta);
}

static const char *
in_words(const AllocPlanAction *actions, size_t n)
{
	static const char *const names[] = {
		[ALLOC_ACTION_CREATE] = "create",
		[ALLOC_ACTION_GROW] = "grow",
		[ALLOC_ACTION_ETA] = "eta",
		[ALLOC_ACTION_SHRINK] = "shrink",
		[ALLOC_ACTION_RETIRE] = "retire",
		[ALLOC_REFUSE_TWICE] = "twice",
		[ALLOC_REFUSE_SKU] = "other sku"
	};
	static char words[2000];

	words[0] = '\0';
	for (size_t i = 0; i < n; i++)
	{
		const AllocPlanAction *action = &actions[i];
		size_t		used = strlen(words);

		snprintf(words + used, sizeof(words) - used, "%s%s %.*s of %.*s:",
				 i > 0 ? "; " : "", names[action->kind],
				 (int) action->ref.length, action->ref.bytes,
				 (int) action->sku.length, action->sku.bytes);
		if (action->kind >= ALLOC_REFUSE_TWICE)
		{
			used = strlen(words);
			snprintf(words + used, sizeof(words) - used, " row %zu",
					 action->number);
			continue;
		}
		if (action->kind == ALLOC_ACTION_CREATE)
			add_terms(words, sizeof(words), " ", &action->after);
		else
		{
			add_terms(words, sizeof(words), " ", &action->before);
			add_terms(words, sizeof(words), " to ", &action->after);
		}
	}
	return words;
}

/* The plan of one row, or none, against one batch, or none, in words. */
static const char *
plan_one(const AllocPlanFeedRow *feed, const AllocPlanPresent *present)
{
	AllocPlanFeedRow rows[1];
	AllocPlanPresent batches[1];
	AllocPlanAction actions[MAX_ACTIONS];

	if (feed != NULL)
		rows[0] = *feed;
	if (present != NULL)
		batches[0] = *present;
	return in_words(actions, plan(rows, feed != NULL, batches,
								  present != NULL, actions));
}

static const char *
plan_change(int64_t qty, int32_t eta, int64_t qty_there, int32_t eta_there)
{
	AllocPlanFeedRow wanted = row(1, "b", "LAMP", qty, eta);
	AllocPlanPresent there = batch("b", "LAMP", qty_there, eta_there, 0);

	return plan_one(&wanted, &there);
}

/* ---- tests ---- */

static void
test_one_batch(void)
{
	AllocPlanFeedRow wanted = row(1, "b", "LAMP", 20, 7);
	AllocPlanPresent there = batch("b", "LAMP", 20, WAREHOUSE, 3);

	is_text(plan_one(NULL, NULL), "", "nothing in the feed, nothing there");
	is_text(plan_one(&wanted, NULL), "create b of LAMP: 20@7", "not there: create");
	is_text(plan_one(NULL, &there), "retire b of LAMP: 20 to 3",
			"not in the feed: down to what was shipped");
	there.shipped = 20;
	is_text(plan_one(NULL, &there), "", "not in the feed, and all shipped: nothing");
	there = batch("b", "LAMP", 0, 5, 0);
	is_text(plan_one(NULL, &there), "", "not in the feed, and empty: nothing");
}

static void
test_changes(void)
{
	is_text(plan_change(5, 7, 5, 7), "", "as it is: nothing");
	is_text(plan_change(5, WAREHOUSE, 5, WAREHOUSE), "",
			"as it is, in the warehouse: nothing");
	is_text(plan_change(6, 7, 5, 7), "grow b of LAMP: 5@7 to 6@7", "more");
	is_text(plan_change(4, 7, 5, 7), "shrink b of LAMP: 5@7 to 4@7", "less");
	is_text(plan_change(0, 7, 5, 7), "shrink b of LAMP: 5@7 to 0@7", "nothing left");
	is_text(plan_change(5, 8, 5, 7), "eta b of LAMP: 5@7 to 5@8", "later");
	is_text(plan_change(5, WAREHOUSE, 5, 7), "eta b of LAMP: 5@7 to 5", "arrived");
	is_text(plan_change(5, 7, 5, WAREHOUSE), "eta b of LAMP: 5 to 5@7",
			"back at sea");
	is_text(plan_change(5, 0, 5, WAREHOUSE), "eta b of LAMP: 5 to 5@0",
			"day 0 is not the warehouse");
	is_text(plan_change(9, 8, 5, 7),
			"grow b of LAMP: 5@7 to 9@7; eta b of LAMP: 9@7 to 9@8",
			"more and later: two actions, first more");
	is_text(plan_change(2, 8, 5, 7),
			"eta b of LAMP: 5@7 to 5@8; shrink b of LAMP: 5@8 to 2@8",
			"less and later: two actions, first later");
	is_text(plan_change(INT64_MAX, INT32_MAX, 0, INT32_MIN),
			"grow b of LAMP: 0@-2147483648 to 9223372036854775807@-2147483648; "
			"eta b of LAMP: 9223372036854775807@-2147483648 to 9223372036854775807@2147483647",
			"from one limit to the other");
}

static void
test_below_shipped(void)
{
	AllocPlanFeedRow wanted = row(1, "b", "LAMP", 2, WAREHOUSE);
	AllocPlanPresent there = batch("b", "LAMP", 5, WAREHOUSE, 3);
	AllocPlanSync sync = {.feed = &wanted,.nfeed = 1,.present = &there,.npresent = 1};
	AllocPlanAction action;

	ok(alloc_plan_next_action(&sync, &action) &&
	   action.kind == ALLOC_ACTION_SHRINK && action.shipped == 3 &&
	   action.after.qty == 2 && action.number == 1,
	   "below what was shipped: planned, and the shipped units are told");
	ok(!alloc_plan_next_action(&sync, &action), "and nothing else");
	ok(!alloc_plan_next_action(&sync, &action), "the end stays the end");
}

static void
test_order(void)
{
	AllocPlanFeedRow feed[] = {
		row(1, "v1", "VASE", 1, 9),
		row(2, "l5", "LAMP", 1, 9),
		row(3, "l4", "LAMP", 9, 9),
		row(4, "l3", "LAMP", 5, 9),
		row(5, "l2", "LAMP", 1, 9),
		row(6, "l6", "LAMP", 1, 9)
	};
	AllocPlanPresent present[] = {
		batch("l1", "LAMP", 5, 9, 0),
		batch("l2", "LAMP", 5, 9, 0),
		batch("l3", "LAMP", 5, 8, 0),
		batch("l4", "LAMP", 5, 9, 0),
		batch("a", "VASE", 5, 9, 0),
		batch("z", "LAM", 5, 9, 0)
	};
	AllocPlanAction actions[MAX_ACTIONS];
	size_t		n = plan(feed, lengthof(feed), present, lengthof(present),
						 actions);

	is_text(in_words(actions, n),
			"retire z of LAM: 5@9 to 0@9; "
			"create l5 of LAMP: 1@9; create l6 of LAMP: 1@9; "
			"grow l4 of LAMP: 5@9 to 9@9; eta l3 of LAMP: 5@8 to 5@9; "
			"shrink l2 of LAMP: 5@9 to 1@9; retire l1 of LAMP: 5@9 to 0@9; "
			"create v1 of VASE: 1@9; retire a of VASE: 5@9 to 0@9",
			"by sku; then create, grow, eta, shrink, retire; then by ref");
}

static void
test_refused(void)
{
	AllocPlanFeedRow feed[] = {
		row(4, "b", "LAMP", 7, WAREHOUSE),
		row(1, "a", "LAMP", 5, WAREHOUSE),
		row(3, "a", "RUG", 6, WAREHOUSE),
		row(2, "a", "LAMP", 5, WAREHOUSE),
		row(5, "n", "LAMP", 5, WAREHOUSE),
		row(6, "n", "LAMP", 5, WAREHOUSE)
	};
	AllocPlanPresent present[] = {
		batch("a", "LAMP", 5, WAREHOUSE, 0),
		batch("b", "RUG", 9, 3, 0)
	};
	AllocPlanAction actions[MAX_ACTIONS];
	size_t		n = plan(feed, lengthof(feed), present, lengthof(present),
						 actions);

	is_text(in_words(actions, n),
			"create n of LAMP: 5; twice a of LAMP: row 2; twice n of LAMP: row 6; "
			"twice a of RUG: row 3; other sku b of RUG: row 4",
			"a ref that is there twice, whatever else is in the row; a ref of another sku, once");
}

static void
test_keys(void)
{
	const char *const in_order[] = {"", "A", "AB", "B", "a", "\x7f", "\x80", "\xff", "\xff\x01"};
	bool		holds = true;

	for (size_t i = 0; i < lengthof(in_order); i++)
		for (size_t j = 0; j < lengthof(in_order); j++)
		{
			AllocPlanKey a = key(in_order[i]);
			AllocPlanKey b = key(in_order[j]);
			int			order = alloc_plan_compare_keys(&a, &b);

			if ((order < 0) != (i < j) || (order > 0) != (i > j))
				holds = false;
		}
	ok(holds, "keys are in the order of their bytes, unsigned; a beginning first");
}

/* ---- random feeds ---- */

static uint64_t random_state = 20110101;

/* xorshift64*: a number from 0 to below - 1. */
static uint64_t
random_below(uint64_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * UINT64_C(2685821657736338717) >> 11) % below;
}

static const char refs[MAX_ROWS][3] = {
	"a", "aa", "ab", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"
};

/* The sku of a ref is always the same. */
static const char *
sku_of(size_t ref)
{
	static const char *const skus[] = {"LAMP", "RUG", "VASE"};

	return skus[ref % lengthof(skus)];
}

static int32_t
random_eta(void)
{
	return (int32_t) random_below(4) - 1;
}

static AllocPlanPresent *
find(AllocPlanPresent *state, size_t n, const AllocPlanKey *ref)
{
	for (size_t i = 0; i < n; i++)
		if (alloc_plan_compare_keys(&state[i].ref, ref) == 0)
			return &state[i];
	return NULL;
}

static bool
same_terms(const AllocPlanTerms *a, const AllocPlanTerms *b)
{
	return a->qty == b->qty && a->in_stock == b->in_stock && a->eta == b->eta;
}

/* Does each action find what it says, change something, and be in order? */
static bool
apply(const AllocPlanAction *actions, size_t n, AllocPlanPresent *state,
	  size_t *nstate)
{
	for (size_t i = 0; i < n; i++)
	{
		const AllocPlanAction *action = &actions[i];
		AllocPlanPresent *there = find(state, *nstate, &action->ref);

		if (i > 0 && alloc_plan_compare_actions(&actions[i - 1], action) >= 0)
			return false;
		if ((action->kind == ALLOC_ACTION_CREATE) != (there == NULL))
			return false;
		if (there == NULL)
		{
			AllocPlanPresent created = {action->ref, action->sku, action->after, 0};

			state[(*nstate)++] = created;
			continue;
		}
		if (!same_terms(&there->terms, &action->before) ||
			same_terms(&there->terms, &action->after))
			return false;
		there->terms = action->after;
	}
	return true;
}

/* Is each batch what the feed says, or left with what was shipped? */
static bool
agrees(const AllocPlanFeedRow *feed, size_t nfeed, AllocPlanPresent *state,
	   size_t nstate)
{
	size_t		in_feed = 0;

	for (size_t i = 0; i < nstate; i++)
	{
		const AllocPlanFeedRow *wanted = NULL;

		for (size_t j = 0; j < nfeed; j++)
			if (alloc_plan_compare_keys(&feed[j].ref, &state[i].ref) == 0)
				wanted = &feed[j];
		if (wanted == NULL && state[i].terms.qty != state[i].shipped)
			return false;
		if (wanted != NULL && !same_terms(&wanted->terms, &state[i].terms))
			return false;
		in_feed += wanted != NULL;
	}
	return in_feed == nfeed;
}

/* Of each ref a row, or a batch, or both, or none. */
static size_t
random_feed(AllocPlanFeedRow *feed)
{
	size_t		n = 0;

	for (size_t ref = MAX_ROWS; ref-- > 0;)
		if (random_below(3) > 0)
		{
			feed[n] = row(n + 1, refs[ref], sku_of(ref),
						  (int64_t) random_below(4), random_eta());
			n++;
		}
	return n;
}

static size_t
random_present(AllocPlanPresent *present)
{
	size_t		n = 0;

	for (size_t ref = MAX_ROWS; ref-- > 0;)
		if (random_below(3) > 0)
		{
			uint64_t	qty = random_below(4);

			present[n++] = batch(refs[ref], sku_of(ref), (int64_t) qty,
								 random_eta(),
								 (int64_t) random_below(qty + 1));
		}
	return n;
}

static void
test_random(void)
{
	int			wrong = -1;
	int			not_empty = -1;

	for (int i = 0; i < RANDOM_CASES; i++)
	{
		AllocPlanFeedRow feed[MAX_ROWS];
		AllocPlanPresent present[MAX_ROWS] = {0};
		AllocPlanPresent state[2 * MAX_ROWS] = {0};
		AllocPlanAction actions[MAX_ACTIONS];
		size_t		nfeed = random_feed(feed);
		size_t		npresent = random_present(present);
		size_t		nstate = npresent;
		size_t		n;

		memcpy(state, present, sizeof(present));
		n = plan(feed, nfeed, present, npresent, actions);
		if (!apply(actions, n, state, &nstate) ||
			!agrees(feed, nfeed, state, nstate))
			wrong = i;
		if (plan(feed, nfeed, state, nstate, actions) != 0)
			not_empty = i;
	}
	ok(wrong < 0, "random feeds: the actions, in their order, make the batches equal to the feed");
	ok(not_empty < 0, "and a second plan has none");
	if (wrong >= 0 || not_empty >= 0)
		printf("# cases %d, %d\n", wrong, not_empty);
}

int
main(void)
{
	begin_tests();
	test_one_batch();
	test_changes();
	test_below_shipped();
	test_order();
	test_refused();
	test_keys();
	test_random();
	return end_tests();
}
