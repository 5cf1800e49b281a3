/*-------------------------------------------------------------------------
 *
 * planner_fuzz.c
 *	  The planner under libFuzzer: whatever its input, its answers are those
 *	  that the rules of planner.h ask for.
 *
 * The input's first byte says what is done, the others are batches and lines,
 * or a feed and what is there.  Quantities reach up to 2^63-1, keys are short,
 * so that they meet.  An answer that breaks a rule aborts; overflow and bad
 * memory are the sanitizers' to find.
 *
 *-------------------------------------------------------------------------
 */
#include "planner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ITEMS 32
#define MAX_ACTIONS ((size_t) 3 * MAX_ITEMS)

#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* What is left of the input. */
typedef struct Input
{
	const uint8_t *bytes;
	size_t		length;
} Input;

/* A feed and what is there: the planner's, and one to apply the plan to. */
typedef struct Stock
{
	AllocPlanFeedRow feed[MAX_ITEMS];
	AllocPlanPresent present[MAX_ITEMS];
	AllocPlanPresent result[2 * MAX_ITEMS];
	size_t		nfeed;
	size_t		npresent;
	size_t		nresult;
} Stock;

static void fuzz_lines(Input *input);
static void fuzz_shed(Input *input);
static void fuzz_sync(Input *input);

/* libFuzzer's name. */
int			LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	Input		input = {bytes + 1, length - 1};

	if (length == 0)
		return 0;
	switch (bytes[0] % 3)
	{
		case 0:
			fuzz_lines(&input);
			break;
		case 1:
			fuzz_shed(&input);
			break;
		default:
			fuzz_sync(&input);
	}
	return 0;
}

/* ---- values ---- */

static uint8_t
next_byte(Input *input)
{
	if (input->length == 0)
		return 0;
	input->length--;
	return *input->bytes++;
}

/* Small ones, which meet; all sizes; and the largest. */
static int64_t
next_qty(Input *input)
{
	uint8_t		form = next_byte(input);
	uint64_t	qty = 0;

	if (form < 128)
		return form;
	for (int i = 0; i < form % 8; i++)
		qty = qty << 8 | next_byte(input);
	if (form >= 240)
		qty = INT64_MAX - qty % 8;
	return (int64_t) (qty & INT64_MAX);
}

static AllocPlanKey
next_key(Input *input)
{
	AllocPlanKey key = {NULL, next_byte(input) % 4};

	if (key.length > input->length)
		key.length = input->length;
	/* an empty one has no bytes at all */
	if (key.length > 0)
		key.bytes = (const char *) input->bytes;
	input->bytes += key.length;
	input->length -= key.length;
	return key;
}

static AllocPlanTerms
next_terms(Input *input)
{
	AllocPlanTerms terms = {.qty = next_qty(input)};
	uint8_t		day = next_byte(input);

	terms.in_stock = day % 4 == 0;
	terms.eta = day == 1 ? INT32_MAX : day == 2 ? INT32_MIN : day % 8;
	return terms;
}

static bool
same_key(const AllocPlanKey *a, const AllocPlanKey *b)
{
	return a->length == b->length &&
		(a->length == 0 || memcmp(a->bytes, b->bytes, a->length) == 0);
}

static bool
same_terms(const AllocPlanTerms *a, const AllocPlanTerms *b)
{
	return a->qty == b->qty && a->in_stock == b->in_stock &&
		(a->in_stock || a->eta == b->eta);
}

/* ---- lines look for batches ---- */

static size_t
read_batches(Input *input, AllocPlanBatch *batches)
{
	size_t		n = next_byte(input) % (MAX_ITEMS + 1);

	for (size_t i = 0; i < n; i++)
	{
		AllocPlanTerms terms = next_terms(input);

		batches[i] = (AllocPlanBatch)
		{
			.batch_id = (int64_t) (i * 7 % n),.available = terms.qty,
				.eta = terms.eta,.in_stock = terms.in_stock
		};
		if (n % 7 == 0)
			batches[i].batch_id = (int64_t) i;
	}
	return n;
}

/* The batch can serve the line, and none that is preferred to it can. */
static void
check_choice(const AllocPlanBatch *batches, size_t n, int64_t qty,
			 ptrdiff_t choice)
{
	REQUIRE(choice == ALLOC_NO_BATCH || (choice >= 0 && (size_t) choice < n));
	if (choice != ALLOC_NO_BATCH)
		REQUIRE(batches[choice].available >= qty);
	for (size_t i = 0; i < n; i++)
	{
		if (batches[i].available < qty || (ptrdiff_t) i == choice)
			continue;
		REQUIRE(choice != ALLOC_NO_BATCH);
		REQUIRE(alloc_plan_preference(&batches[choice], &batches[i]) < 0);
		REQUIRE(alloc_plan_preference(&batches[i], &batches[choice]) > 0);
	}
}

static void
fuzz_lines(Input *input)
{
	AllocPlanBatch batches[MAX_ITEMS];
	AllocPlanBatch together[MAX_ITEMS];
	AllocPlanLine lines[MAX_ITEMS];
	size_t		nbatches = read_batches(input, batches);
	size_t		nlines = next_byte(input) % (MAX_ITEMS + 1);

	memcpy(together, batches, sizeof(batches[0]) * nbatches);
	for (size_t i = 0; i < nlines; i++)
	{
		lines[i].qty = next_qty(input);
		if (lines[i].qty == 0)
			lines[i].qty = 1;
	}
	alloc_plan_lines(together, nbatches, lines, nlines);
	for (size_t i = 0; i < nlines; i++)
	{
		ptrdiff_t	choice = alloc_plan_line(batches, nbatches, lines[i].qty);
		int64_t		before = choice == ALLOC_NO_BATCH ? 0 : batches[choice].available;

		check_choice(batches, nbatches, lines[i].qty, choice);
		REQUIRE(choice == lines[i].batch);
		REQUIRE(alloc_plan_take(batches, nbatches, lines[i].qty) == choice);
		if (choice != ALLOC_NO_BATCH)
			REQUIRE(batches[choice].available == before - lines[i].qty);
	}
	for (size_t i = 0; i < nbatches; i++)
	{
		REQUIRE(batches[i].available >= 0);
		REQUIRE(batches[i].available == together[i].available);
	}
}

/* ---- lines leave a batch ---- */

/* A batch that has shipped some, and lines: as few leave as have to. */
static void
fuzz_shed(Input *input)
{
	int64_t		lines[MAX_ITEMS];
	size_t		nlines = next_byte(input) % (MAX_ITEMS + 1);
	size_t		left = nlines;
	int64_t		available = next_qty(input);
	int64_t		shipped = next_qty(input);
	int64_t		purchased;
	int64_t		wanted = next_qty(input);
	int64_t		deficit;
	int64_t		needed;

	if (__builtin_add_overflow(available, shipped, &purchased))
		return;
	for (size_t i = 0; i < nlines; i++)
	{
		lines[i] = next_qty(input);
		if (__builtin_add_overflow(purchased, lines[i], &purchased))
			return;
	}
	/* less than what was shipped is refused before */
	if (wanted < shipped)
		return;
	deficit = alloc_plan_deficit(purchased, available, wanted);
	while (deficit > 0)
	{
		REQUIRE(left > 0);
		deficit = alloc_plan_shed(deficit, lines[--left]);
	}
	needed = shipped;
	for (size_t i = 0; i < left; i++)
		needed += lines[i];
	REQUIRE(wanted - needed == -deficit);
	if (left < nlines)
		REQUIRE(lines[left] > -deficit);
}

/* ---- a feed ---- */

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

static void
read_stock(Input *input, Stock *stock)
{
	size_t		n = next_byte(input) % (MAX_ITEMS + 1);

	stock->nfeed = next_byte(input) % (MAX_ITEMS + 1);
	stock->npresent = 0;
	for (size_t i = 0; i < stock->nfeed; i++)
	{
		stock->feed[i].ref = next_key(input);
		stock->feed[i].sku = next_key(input);
		stock->feed[i].terms = next_terms(input);
		stock->feed[i].number = i + 1;
	}
	for (size_t i = 0; i < n; i++)
	{
		AllocPlanPresent batch = {
			.ref = next_key(input),.sku = next_key(input),
			.terms = next_terms(input),.shipped = next_qty(input)
		};
		bool		is_new = true;

		if (batch.shipped > batch.terms.qty)
			batch.shipped = batch.terms.qty;
		for (size_t j = 0; j < stock->npresent; j++)
			is_new = is_new && !same_key(&batch.ref, &stock->present[j].ref);
		if (is_new)
			stock->present[stock->npresent++] = batch;
	}
	qsort(stock->feed, stock->nfeed, sizeof(stock->feed[0]), by_feed);
	qsort(stock->present, stock->npresent, sizeof(stock->present[0]), by_present);
	memcpy(stock->result, stock->present, sizeof(stock->present));
	stock->nresult = stock->npresent;
}

static AllocPlanPresent *
find_result(Stock *stock, const AllocPlanKey *ref)
{
	for (size_t i = 0; i < stock->nresult; i++)
		if (same_key(&stock->result[i].ref, ref))
			return &stock->result[i];
	return NULL;
}

/* As the command does it; what an action says of before is so. */
static void
apply(Stock *stock, const AllocPlanAction *action)
{
	AllocPlanPresent *batch = find_result(stock, &action->ref);

	if (action->kind == ALLOC_ACTION_CREATE)
	{
		REQUIRE(batch == NULL && stock->nresult < 2 * (size_t) MAX_ITEMS);
		batch = &stock->result[stock->nresult++];
		*batch = (AllocPlanPresent)
		{
			.ref = action->ref,.sku = action->sku
		};
	}
	else
	{
		REQUIRE(batch != NULL);
		REQUIRE(same_key(&batch->sku, &action->sku));
		REQUIRE(same_terms(&batch->terms, &action->before));
		REQUIRE(!same_terms(&action->before, &action->after));
	}
	batch->terms = action->after;
}

/* Everything is as the feed says, and nothing else is there but what has left. */
static void
check_result(Stock *stock)
{
	for (size_t i = 0; i < stock->nfeed; i++)
	{
		const AllocPlanPresent *batch = find_result(stock, &stock->feed[i].ref);

		REQUIRE(batch != NULL);
		REQUIRE(same_key(&batch->sku, &stock->feed[i].sku));
		REQUIRE(same_terms(&batch->terms, &stock->feed[i].terms));
	}
	for (size_t i = 0; i < stock->nresult; i++)
	{
		bool		in_feed = false;

		for (size_t j = 0; j < stock->nfeed; j++)
			in_feed = in_feed || same_key(&stock->feed[j].ref, &stock->result[i].ref);
		if (!in_feed)
			REQUIRE(stock->result[i].terms.qty == stock->result[i].shipped);
	}
}

/* Is there a ref twice, or with another sku? */
static bool
must_refuse(const Stock *stock)
{
	for (size_t i = 0; i < stock->nfeed; i++)
	{
		const AllocPlanFeedRow *row = &stock->feed[i];

		for (size_t j = 0; j < i; j++)
			if (same_key(&row->ref, &stock->feed[j].ref))
				return true;
		for (size_t j = 0; j < stock->npresent; j++)
			if (same_key(&row->ref, &stock->present[j].ref) &&
				!same_key(&row->sku, &stock->present[j].sku))
				return true;
	}
	return false;
}

static void
fuzz_sync(Input *input)
{
	Stock		stock;
	AllocPlanAction actions[MAX_ACTIONS];
	AllocPlanSync sync = {.feed = stock.feed,.present = stock.present};
	bool		refused = false;
	size_t		n = 0;

	read_stock(input, &stock);
	sync.nfeed = stock.nfeed;
	sync.npresent = stock.npresent;
	while (n < MAX_ACTIONS && alloc_plan_next_action(&sync, &actions[n]))
	{
		refused = refused || actions[n].kind >= ALLOC_REFUSE_TWICE;
		n++;
	}
	REQUIRE(n < MAX_ACTIONS);
	REQUIRE(refused == must_refuse(&stock));
	if (refused)
		return;
	qsort(actions, n, sizeof(actions[0]), by_action);
	for (size_t i = 0; i < n; i++)
	{
		if (i > 0)
			REQUIRE(alloc_plan_compare_actions(&actions[i - 1], &actions[i]) < 0);
		apply(&stock, &actions[i]);
	}
	check_result(&stock);
}
