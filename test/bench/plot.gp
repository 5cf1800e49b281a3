# Draws what test/bench/curves measured, as SVG:
#
#   gnuplot -c test/bench/plot.gp VALUES.tsv DRAWING.svg SKUS
#
# Two panels of one scale: default commits, and such as take 1 ms longer.

values = ARG1
skus = ARG3

set terminal svg size 960,480 dynamic font 'Helvetica,Arial,sans-serif,14' \
	background rgb 'white' linewidth 1.2
set output ARG2
set datafile separator tab
set encoding utf8

set style line 1 linecolor rgb '#0b5fa5' linewidth 2 pointtype 7 pointsize 0.6
set style line 2 linecolor rgb '#0b5fa5' linewidth 2 pointtype 6 pointsize 0.7 dashtype (8, 5)
set style line 3 linecolor rgb '#d1600d' linewidth 2 pointtype 5 pointsize 0.6
set style line 4 linecolor rgb '#d1600d' linewidth 2 pointtype 4 pointsize 0.7 dashtype (8, 5)

set border 3 linecolor rgb '#555555'
set tics nomirror scale 0.5 textcolor rgb '#333333'
set grid ytics linecolor rgb '#dddddd' linetype 1 linewidth 0.6
set logscale x 2
set xlabel 'clients' offset 0, 0.5

# The highest point decides for both panels.
highest = 0
do for [column = 2:9] {
	stats values using column every ::1 nooutput
	highest = STATS_max > highest ? STATS_max : highest
}
between = highest > 10000 ? 4000 : highest > 5000 ? 2000 : 1000
stats values using 1 every ::1 nooutput
set xrange [STATS_min * 0.9:STATS_max * 1.12]
set xtics (1, 2, 4, 8, 16, 32, 64, 128, 256)
set yrange [0:between * ceil(highest / between)]
set ytics between

set multiplot
unset key
set bmargin at screen 0.25
set tmargin at screen 0.90

set lmargin at screen 0.10
set rmargin at screen 0.505
set title 'Default commits'
set ylabel 'allocations per second' offset 2.5, 0
plot values using 'clients':'fast_alloc_many' with linespoints linestyle 1, \
	values using 'clients':'fast_alloc_one' with linespoints linestyle 2, \
	values using 'clients':'fast_peer_many' with linespoints linestyle 3, \
	values using 'clients':'fast_peer_one' with linespoints linestyle 4

set lmargin at screen 0.58
set rmargin at screen 0.985
set title 'Commits that take 1 ms longer'
unset ylabel
plot values using 'clients':'slow_alloc_many' with linespoints linestyle 1, \
	values using 'clients':'slow_alloc_one' with linespoints linestyle 2, \
	values using 'clients':'slow_peer_many' with linespoints linestyle 3, \
	values using 'clients':'slow_peer_one' with linespoints linestyle 4

# The key of both: an empty panel of the whole width below them.
set lmargin at screen 0.02
set rmargin at screen 0.98
set bmargin at screen 0.02
set tmargin at screen 0.10
unset title
unset xlabel
unset tics
unset border
unset grid
set key inside center horizontal maxrows 1 Left reverse samplen 3 width 1
plot NaN with linespoints linestyle 1 title sprintf('alloc, %s skus', skus), \
	NaN with linespoints linestyle 2 title 'alloc, one sku', \
	NaN with linespoints linestyle 3 title sprintf('PL/pgSQL, %s skus', skus), \
	NaN with linespoints linestyle 4 title 'PL/pgSQL, one sku'

unset multiplot
