/*-------------------------------------------------------------------------
 *
 * planner_test.c
 *	  The planner alone, without a server: prints TAP.
 *
 * test/run compiles it with src/planner.c and the address and undefined
 * behaviour sanitizers, so that an overflow or a stray read fails as well.
 * Random cases come from a generator of our own with a fixed seed: they are
 * the same in each run, and a failure names the case.
 *
 *-------------------------------------------------------------------------
 */
#include "planner.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
/* Of sanitizer/allocator_interface.h, which not every gcc comes with. */
extern int	__sanitizer_install_malloc_and_free_hooks(void (*on_malloc) (const volatile void *, size_t),
													  void (*on_free) (const volatile void *));
#endif

#define MAX_BATCHES 12
#define MAX_LINES 24
#define RANDOM_CASES 20000

static long allocations;

/* ---- TAP ---- */

static void
is(int64_t got, int64_t wanted, const char *expected)
{
	ok(got == wanted, expected);
	if (got != wanted)
		printf("# got %lld, wanted %lld\n", (long long) got,
			   (long long) wanted);
}

/* ---- cases ---- */

static AllocPlanBatch
in_stock(int64_t batch_id, int64_t available)
{
	AllocPlanBatch batch = {.batch_id = batch_id,.available = available};

	batch.in_stock = true;
	return batch;
}

static AllocPlanBatch
shipment(int64_t batch_id, int64_t available, int32_t eta)
{
	AllocPlanBatch batch = {.batch_id = batch_id,.available = available};

	batch.eta = eta;
	return batch;
}

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

/* Mostly small, so that quantities meet; sometimes at the limits. */
static int64_t
random_qty(void)
{
	switch (random_below(12))
	{
		case 0:
			return INT64_MAX - (int64_t) random_below(3);
		case 1:
			return (int64_t) random_below(3);
		default:
			return (int64_t) random_below(40);
	}
}

static int32_t
random_eta(void)
{
	switch (random_below(8))
	{
		case 0:
			return INT32_MIN;
		case 1:
			return INT32_MAX;
		default:
			return (int32_t) random_below(5) - 2;
	}
}

static void
shuffle(AllocPlanBatch *batches, size_t n)
{
	for (size_t i = n; i > 1; i--)
	{
		size_t		j = random_below(i);
		AllocPlanBatch swapped = batches[i - 1];

		batches[i - 1] = batches[j];
		batches[j] = swapped;
	}
}

/* Up to MAX_BATCHES batches with different ids, in any order. */
static size_t
random_batches(AllocPlanBatch *batches)
{
	size_t		n = random_below(MAX_BATCHES + 1);
	int64_t		batch_id = (int64_t) random_below(3);

	for (size_t i = 0; i < n; i++)
	{
		batches[i] = shipment(batch_id, random_qty(), random_eta());
		batches[i].in_stock = random_below(3) == 0;
		batch_id += 1 + (int64_t) random_below(3);
	}
	shuffle(batches, n);
	return n;
}

static size_t
random_lines(AllocPlanLine *lines)
{
	size_t		n = random_below(MAX_LINES + 1);

	for (size_t i = 0; i < n; i++)
	{
		lines[i].qty = random_qty();
		if (lines[i].qty == 0)
			lines[i].qty = 1;
		/* to be overwritten */
		lines[i].batch = 77;
	}
	return n;
}

/* ---- the oracle: sort all, then scan ---- */

typedef struct Ranked
{
	int64_t		arrival;		/* before any date: in stock */
	int64_t		batch_id;
	ptrdiff_t	index;
} Ranked;

static int
compare_ranked(const void *a, const void *b)
{
	const Ranked *x = a;
	const Ranked *y = b;

	if (x->arrival != y->arrival)
		return (x->arrival > y->arrival) - (x->arrival < y->arrival);
	return (x->batch_id > y->batch_id) - (x->batch_id < y->batch_id);
}

static ptrdiff_t
oracle_line(const AllocPlanBatch *batches, size_t n, int64_t qty)
{
	Ranked		ranked[MAX_BATCHES] = {0};

	for (size_t i = 0; i < n; i++)
	{
		ranked[i].arrival = batches[i].in_stock ? INT64_MIN : batches[i].eta;
		ranked[i].batch_id = batches[i].batch_id;
		ranked[i].index = (ptrdiff_t) i;
	}
	qsort(ranked, n, sizeof(Ranked), compare_ranked);
	for (size_t i = 0; i < n; i++)
		if (qty <= batches[ranked[i].index].available)
			return ranked[i].index;
	return -1;
}

/*
 * How many of the oldest lines fit into room units, when none may be passed
 * over: what is to be left after shedding.  Counts from the old end, where
 * the planner counts from the new one.
 */
static size_t
oracle_keep(const int64_t *qty_by_age, size_t n, int64_t room)
{
	size_t		kept = 0;

	while (kept < n && qty_by_age[kept] <= room)
		room -= qty_by_age[kept++];
	return kept;
}

/* ---- the book, chapter 1 ---- */

static void
test_book_allocate(void)
{
	enum
	{
		TODAY = 4018, TOMORROW, LATER = TODAY + 14
	};
	AllocPlanBatch stock_and_ship[] = {in_stock(1, 100),
	shipment(2, 100, TOMORROW)};
	AllocPlanBatch speeds[] = {shipment(1, 100, TOMORROW),
		shipment(2, 100, TODAY), shipment(3, 100, LATER)};
	AllocPlanBatch batch = in_stock(1, 20);
	AllocPlanBatch small = in_stock(1, 2);
	AllocPlanBatch exact = in_stock(1, 2);
	AllocPlanBatch one = shipment(1, 10, TODAY);
	AllocPlanLine lines[] = {{10, 5}, {1, 5}};

	is(alloc_plan_line(stock_and_ship, 2, 10), 0,
	   "prefers current stock batches to shipments");
	is(alloc_plan_line(speeds, 3, 10), 1, "prefers earlier batches");
	ok(alloc_plan_serves(&batch, 2),
	   "can allocate if available greater than required");
	ok(!alloc_plan_serves(&small, 20),
	   "cannot allocate if available smaller than required");
	ok(alloc_plan_serves(&exact, 2),
	   "can allocate if available equal to required");

	alloc_plan_lines(stock_and_ship, 2, lines, 1);
	is(stock_and_ship[0].available, 90,
	   "allocating reduces what is available of the batch");
	is(stock_and_ship[1].available, 100, "and of no other batch");

	alloc_plan_lines(&one, 1, lines, 2);
	is(lines[0].batch, 0, "the first line takes all of the only batch");
	is(lines[1].batch, ALLOC_NO_BATCH, "the second line is out of stock");
	is(one.available, 0, "an exact fit leaves nothing");
}

/* ---- order of preference ---- */

static void
test_preference_values(void)
{
	AllocPlanBatch stock = in_stock(9, 0);
	AllocPlanBatch older_stock = in_stock(8, 0);
	AllocPlanBatch first = shipment(1, 0, INT32_MIN);
	AllocPlanBatch last = shipment(2, 0, INT32_MAX);
	AllocPlanBatch tie = shipment(3, 0, INT32_MAX);
	AllocPlanBatch late_stock = in_stock(10, 0);

	late_stock.eta = INT32_MAX;
	ok(alloc_plan_preference(&stock, &first) < 0,
	   "stock goes before the earliest day there is");
	ok(alloc_plan_preference(&first, &stock) > 0,
	   "the earliest day there is goes after stock");
	ok(alloc_plan_preference(&first, &last) < 0,
	   "the earliest day goes before the latest, without overflow");
	ok(alloc_plan_preference(&last, &first) > 0,
	   "the latest day goes after the earliest, without overflow");
	ok(alloc_plan_preference(&last, &tie) < 0,
	   "of two with the same day the one added first is preferred");
	ok(alloc_plan_preference(&older_stock, &stock) < 0,
	   "of two in stock the one added first is preferred");
	ok(alloc_plan_preference(&stock, &late_stock) < 0,
	   "the eta of a batch in stock means nothing");
	ok(alloc_plan_preference(&late_stock, &stock) > 0,
	   "the eta of a batch in stock means nothing, the other way round");
	is(alloc_plan_preference(&stock, &stock), 0,
	   "a batch is as good as itself");
}

static void
test_preference_is_an_order(void)
{
	static const int32_t etas[] = {INT32_MIN, -1, 0, INT32_MAX};
	static const int64_t ids[] = {INT64_MIN, 0, 1, INT64_MAX};
	AllocPlanBatch all[2 * lengthof(etas) * lengthof(ids)];
	size_t		n = 0;
	bool		antisymmetric = true;
	bool		transitive = true;

	for (size_t e = 0; e < lengthof(etas); e++)
		for (size_t i = 0; i < lengthof(ids); i++)
		{
			all[n++] = shipment(ids[i], 0, etas[e]);
			all[n] = shipment(ids[i], 0, etas[e]);
			all[n++].in_stock = true;
		}
	for (size_t a = 0; a < n; a++)
		for (size_t b = 0; b < n; b++)
		{
			int			ab = alloc_plan_preference(&all[a], &all[b]);
			int			ba = alloc_plan_preference(&all[b], &all[a]);

			antisymmetric &= (ab < 0) == (ba > 0) && (ab == 0) == (ba == 0);
			for (size_t c = 0; c < n; c++)
				if (ab < 0 && alloc_plan_preference(&all[b], &all[c]) < 0)
					transitive &= alloc_plan_preference(&all[a], &all[c]) < 0;
		}
	ok(antisymmetric, "preference: a before b means b after a");
	ok(transitive, "preference: a before b before c means a before c");
}

/* ---- one line ---- */

static void
test_line_values(void)
{
	AllocPlanBatch batches[] = {
		shipment(5, 50, 3), shipment(4, 9, 1), in_stock(6, 7), in_stock(2, 8),
		shipment(1, 50, 3), shipment(3, 50, 2)
	};
	AllocPlanBatch limit[] = {in_stock(1, INT64_MAX - 1),
	shipment(2, INT64_MAX, INT32_MAX)};
	AllocPlanBatch nothing = in_stock(1, 0);
	size_t		n = lengthof(batches);

	is(alloc_plan_line(batches, n, 7), 3,
	   "7 units: the stock that was added first");
	is(alloc_plan_line(batches, n, 8), 3, "8 units: an exact fit in stock");
	is(alloc_plan_line(batches, n, 9), 1,
	   "9 units: not one over, so the first ship");
	is(alloc_plan_line(batches, n, 10), 5, "10 units: the next ship");
	is(alloc_plan_line(batches, n, 50), 5, "50 units: exact on that ship");
	is(alloc_plan_line(batches, n, 51), ALLOC_NO_BATCH,
	   "51 units: no batch, though all together have more");
	is(alloc_plan_line(batches, n, INT64_MAX), ALLOC_NO_BATCH,
	   "2^63-1 units: no batch");
	is(alloc_plan_line(limit, 2, INT64_MAX), 1,
	   "2^63-1 units fit a batch of 2^63-1");
	is(alloc_plan_line(limit, 2, INT64_MAX - 1), 0,
	   "2^63-2 units fit a batch of 2^63-2");
	is(alloc_plan_line(&nothing, 1, 1), ALLOC_NO_BATCH,
	   "an empty batch serves nothing");
	is(alloc_plan_line(NULL, 0, 1), ALLOC_NO_BATCH,
	   "without any batch a line is out of stock");
	batches[4].batch_id = 7;
	batches[5].available = 0;
	is(alloc_plan_line(batches, n, 10), 0,
	   "of two on the same day the lower id, not the first in the array");
}

/* Batches 1 to 4 in order of preference, in each of their 24 orders. */
static void
test_line_in_any_order(void)
{
	const AllocPlanBatch by_rank[] = {in_stock(1, 5), in_stock(4, 10),
	shipment(3, 15, -1), shipment(2, 20, 0)};
	static const int64_t qtys[] = {5, 10, 15, 20};
	bool		same = true;

	for (int code = 0; code < 4 * 4 * 4 * 4; code++)
	{
		AllocPlanBatch batches[4];
		int			seen = 0;

		for (int i = 0; i < 4; i++)
		{
			int			rank = (code >> (2 * i)) & 3;

			seen |= 1 << rank;
			batches[i] = by_rank[rank];
		}
		if (seen != 15)
			continue;
		for (int rank = 0; rank < 4; rank++)
		{
			ptrdiff_t	found = alloc_plan_line(batches, 4, qtys[rank]);

			same &= found >= 0 &&
				batches[found].batch_id == by_rank[rank].batch_id;
		}
	}
	ok(same, "the order in which batches are given changes nothing");
}

static void
test_line_against_oracle(void)
{
	AllocPlanBatch batches[MAX_BATCHES];
	int			differs = -1;
	int			placed = 0;

	for (int i = 0; i < RANDOM_CASES && differs < 0; i++)
	{
		size_t		n = random_batches(batches);
		int64_t		qty = random_qty();
		ptrdiff_t	found = alloc_plan_line(batches, n, qty);

		placed += found != ALLOC_NO_BATCH;
		if (found != oracle_line(batches, n, qty))
			differs = i;
	}
	is(differs, -1, "random batches: the batch that sort and scan finds");
	ok(placed > RANDOM_CASES / 4 && placed < RANDOM_CASES,
	   "random batches: some lines have a place and some have none");
}

/* ---- several lines ---- */

static void
test_lines_values(void)
{
	AllocPlanBatch batches[] = {shipment(3, 30, 2), in_stock(2, 10),
	shipment(1, 20, 1)};
	AllocPlanLine lines[] = {{8, 9}, {3, 9}, {2, 9}, {31, 9}, {1, 9}, {30, 9},
	{1, 9}, {12, 9}};
	static const ptrdiff_t wanted[] = {1, 2, 1, ALLOC_NO_BATCH, 2, 0, 2, 2};
	AllocPlanBatch untouched = in_stock(1, 5);
	AllocPlanLine line = {6, 9};

	alloc_plan_lines(batches, 3, lines, lengthof(lines));
	for (size_t i = 0; i < lengthof(lines); i++)
	{
		char		name[80];

		snprintf(name, sizeof(name),
				 "line %zu of %lld units sees what the ones before it left",
				 i + 1, (long long) lines[i].qty);
		is(lines[i].batch, wanted[i], name);
	}
	is(batches[1].available, 0, "the stock is used up");
	is(batches[2].available, 3, "the first ship has 3 left");
	is(batches[0].available, 0, "the second ship is used up");

	alloc_plan_lines(&untouched, 1, &line, 1);
	is(untouched.available, 5, "a line without a place takes nothing");
	alloc_plan_lines(&untouched, 1, NULL, 0);
	is(untouched.available, 5, "no lines, no change");
	alloc_plan_lines(NULL, 0, &line, 1);
	is(line.batch, ALLOC_NO_BATCH, "no batches, no place");
}

static void
test_lines_at_the_limit(void)
{
	AllocPlanBatch batches[] = {in_stock(1, INT64_MAX), in_stock(2, INT64_MAX)};
	AllocPlanLine lines[] = {{INT64_MAX, 9}, {1, 9}, {INT64_MAX - 1, 9}, {1, 9}};

	alloc_plan_lines(batches, 2, lines, lengthof(lines));
	is(lines[0].batch, 0, "2^63-1 units take all of a batch of 2^63-1");
	is(batches[0].available, 0, "and leave it empty");
	is(lines[1].batch, 1, "one unit goes to the next batch");
	is(lines[2].batch, 1, "and 2^63-2 beside it");
	is(lines[3].batch, ALLOC_NO_BATCH, "then there is not one unit left");
	is(batches[1].available, 0, "and none is missing");
}

/* Properties of one plan; NULL when all hold, or the one that does not. */
static const char *
broken_by_plan(const AllocPlanBatch *before, const AllocPlanBatch *after,
			   size_t nbatches, const AllocPlanLine *lines, size_t nlines)
{
	AllocPlanBatch left[MAX_BATCHES];

	memcpy(left, before, nbatches * sizeof(AllocPlanBatch));
	for (size_t i = 0; i < nlines; i++)
	{
		ptrdiff_t	found = oracle_line(left, nbatches, lines[i].qty);

		if (lines[i].batch != found)
			return "a line has another batch than one at a time";
		if (found >= 0)
			left[found].available -= lines[i].qty;
	}
	for (size_t i = 0; i < nbatches; i++)
	{
		int64_t		taken = 0;

		for (size_t j = 0; j < nlines; j++)
			if (lines[j].batch == (ptrdiff_t) i)
				taken += lines[j].qty;
		if (after[i].available < 0)
			return "a batch is oversold";
		if (before[i].available - taken != after[i].available)
			return "units were lost or made";
		if (after[i].batch_id != before[i].batch_id ||
			after[i].eta != before[i].eta ||
			after[i].in_stock != before[i].in_stock)
			return "a batch was changed beside its available units";
	}
	return NULL;
}

static void
test_lines_properties(void)
{
	AllocPlanBatch before[MAX_BATCHES];
	AllocPlanBatch after[MAX_BATCHES];
	AllocPlanLine lines[MAX_LINES];
	int64_t		qtys[MAX_LINES];
	const char *broken = NULL;
	bool		same_qtys = true;
	int			i;

	for (i = 0; i < RANDOM_CASES && !broken; i++)
	{
		size_t		nbatches = random_batches(before);
		size_t		nlines = random_lines(lines);

		for (size_t j = 0; j < nlines; j++)
			qtys[j] = lines[j].qty;
		memcpy(after, before, sizeof(before));
		alloc_plan_lines(after, nbatches, lines, nlines);
		broken = broken_by_plan(before, after, nbatches, lines, nlines);
		for (size_t j = 0; j < nlines; j++)
			same_qtys &= qtys[j] == lines[j].qty;
	}
	ok(broken == NULL,
	   "random lines: as one at a time, nothing oversold, lost or made");
	if (broken)
		printf("# case %d: %s\n", i, broken);
	ok(same_qtys, "random lines: their quantities are left alone");
}

/* ---- lines that leave ---- */

static void
test_deficit_values(void)
{
	is(alloc_plan_deficit(100, 40, 60), 0, "60 used of 100: 60 is enough");
	is(alloc_plan_deficit(100, 40, 59), 1, "60 used of 100: 59 lacks 1");
	is(alloc_plan_deficit(100, 40, 0), 60, "60 used of 100: 0 lacks 60");
	is(alloc_plan_deficit(100, 40, 61), -1, "60 used of 100: 61 leaves 1");
	is(alloc_plan_deficit(100, 100, 0), 0, "nothing used: 0 is enough");
	is(alloc_plan_deficit(100, 0, 100), 0, "all used: the same is enough");
	is(alloc_plan_deficit(0, 0, 0), 0, "an empty batch lacks nothing");
	is(alloc_plan_deficit(INT64_MAX, 0, 0), INT64_MAX,
	   "2^63-1 used: 0 lacks them all");
	is(alloc_plan_deficit(INT64_MAX, INT64_MAX, INT64_MAX), -INT64_MAX,
	   "2^63-1 available: that many stay so");
	is(alloc_plan_deficit(0, 0, INT64_MAX), -INT64_MAX,
	   "from 0 to 2^63-1: that many become available");
}

static void
test_shed_values(void)
{
	is(alloc_plan_shed(10, 4), 6, "a line of 4 leaves, 6 of 10 still lack");
	is(alloc_plan_shed(10, 10), 0, "a line of 10 leaves, the rest just fits");
	is(alloc_plan_shed(10, 25), -15,
	   "a line of 25 leaves, 15 become available");
	is(alloc_plan_shed(1, INT64_MAX), 1 - INT64_MAX,
	   "a line of 2^63-1 leaves for one unit");
	is(alloc_plan_shed(INT64_MAX, INT64_MAX), 0,
	   "a line of 2^63-1 leaves for as many");
	is(alloc_plan_shed(INT64_MAX, 1), INT64_MAX - 1,
	   "a line of 1 leaves, 2^63-2 still lack");
}

/* The book, chapter 9: 50 units with lines of 20 and 20, cut to 25. */
static void
test_book_reallocates(void)
{
	int64_t		deficit = alloc_plan_deficit(50, 10, 25);

	is(deficit, 15, "two lines of 20 in 25: 15 lack");
	is(alloc_plan_shed(deficit, 20), -5,
	   "the newest leaves, and 5 of the 25 are available");
}

static void
test_shed_properties(void)
{
	int			differs = -1;
	int			wrong_rest = -1;
	int			several = 0;

	for (int i = 0; i < RANDOM_CASES; i++)
	{
		int64_t		qtys[MAX_LINES] = {0};
		size_t		n = random_below(MAX_LINES + 1);
		int64_t		shipped = (int64_t) random_below(20);
		int64_t		available = (int64_t) random_below(20);
		int64_t		purchased = shipped + available;
		int64_t		new_purchased;
		int64_t		deficit;
		int64_t		rest;
		size_t		left = n;

		for (size_t j = 0; j < n; j++)
		{
			qtys[j] = 1 + (int64_t) random_below(30);
			purchased += qtys[j];
		}
		new_purchased = shipped + (int64_t) random_below(purchased + 20);
		deficit = alloc_plan_deficit(purchased, available, new_purchased);
		while (deficit > 0 && left > 0)
			deficit = alloc_plan_shed(deficit, qtys[--left]);

		several += n - left > 1;
		if (left != oracle_keep(qtys, n, new_purchased - shipped))
			differs = i;
		rest = new_purchased - shipped;
		for (size_t j = 0; j < left; j++)
			rest -= qtys[j];
		if (deficit > 0 || -deficit != rest)
			wrong_rest = i;
	}
	is(differs, -1, "random batches: no line leaves that need not, no other stays");
	is(wrong_rest, -1, "random batches: minus the deficit is what is available");
	ok(several > 1000, "random batches: often several lines leave");
}

/*
 * Shed lines are placed again: together, as one change of quantity does it,
 * nothing is lost.
 */
static void
test_shrink_conserves(void)
{
	int			broken = -1;
	int			stayed = 0;

	for (int i = 0; i < RANDOM_CASES; i++)
	{
		AllocPlanBatch batches[3] = {in_stock(1, (int64_t) random_below(20)),
			shipment(2, (int64_t) random_below(20), 0),
		shipment(3, (int64_t) random_below(20), 1)};
		AllocPlanLine lines[MAX_LINES];
		int64_t		qtys[MAX_LINES] = {0};
		size_t		n = 1 + random_below(8);
		int64_t		used = 0;
		int64_t		deficit;
		int64_t		new_purchased;
		int64_t		total;
		size_t		left = n;
		size_t		nshed;

		for (size_t j = 0; j < n; j++)
			used += qtys[j] = 1 + (int64_t) random_below(20);
		new_purchased = (int64_t) random_below(used);
		total = batches[0].available + new_purchased + batches[2].available;
		deficit = alloc_plan_deficit(used + batches[1].available,
									 batches[1].available, new_purchased);
		while (deficit > 0 && left > 0)
			deficit = alloc_plan_shed(deficit, qtys[--left]);
		batches[1].available = -deficit;
		nshed = n - left;
		for (size_t j = 0; j < nshed; j++)
			lines[j].qty = qtys[left + j];
		alloc_plan_lines(batches, 3, lines, nshed);

		for (size_t j = 0; j < 3; j++)
		{
			if (batches[j].available < 0)
				broken = i;
			total -= batches[j].available;
		}
		for (size_t j = 0; j < left; j++)
			total -= qtys[j];
		for (size_t j = 0; j < nshed; j++)
		{
			if (lines[j].batch != ALLOC_NO_BATCH)
				total -= lines[j].qty;
			stayed += lines[j].batch == 1;
		}
		if (total != 0)
			broken = i;
	}
	is(broken, -1,
	   "random shrinks: purchased is allocated or available, never less than 0");
	ok(stayed > 1000, "random shrinks: some lines end where they were");
}

/* ---- no memory of its own ---- */

#if defined(__SANITIZE_ADDRESS__)
static void
count_malloc(const volatile void *pointer, size_t size)
{
	(void) pointer;
	(void) size;
	allocations++;
}

static void
ignore_free(const volatile void *pointer)
{
	(void) pointer;
}
#endif

static void
test_allocates_nothing(void)
{
	AllocPlanBatch batches[MAX_BATCHES];
	AllocPlanLine lines[MAX_LINES];
	size_t		nbatches;
	size_t		nlines;
	long		before;
	bool		counted = true;

#if defined(__SANITIZE_ADDRESS__)
	void	   *volatile noticed;

	__sanitizer_install_malloc_and_free_hooks(count_malloc, ignore_free);
	noticed = malloc(1);
	free(noticed);
	counted = allocations > 0;
#endif
	ok(counted, "an allocation would be noticed");
	do
		nbatches = random_batches(batches);
	while (nbatches < 2);
	nlines = random_lines(lines);

	before = allocations;
	(void) alloc_plan_preference(&batches[0], &batches[1]);
	(void) alloc_plan_serves(&batches[0], 1);
	(void) alloc_plan_line(batches, nbatches, 1);
	alloc_plan_lines(batches, nbatches, lines, nlines);
	(void) alloc_plan_shed(alloc_plan_deficit(10, 0, 5), 5);
	is(allocations - before, 0, "the planner allocates no memory");
}

int
main(void)
{
	begin_tests();
	test_book_allocate();
	test_preference_values();
	test_preference_is_an_order();
	test_line_values();
	test_line_in_any_order();
	test_line_against_oracle();
	test_lines_values();
	test_lines_at_the_limit();
	test_lines_properties();
	test_deficit_values();
	test_shed_values();
	test_book_reallocates();
	test_shed_properties();
	test_shrink_conserves();
	test_allocates_nothing();
	return end_tests();
}
