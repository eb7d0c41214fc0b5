package main

import (
	"image/color"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/drain/sim"
	"github.com/ebb-vmm/ebb/tests/bench/chart"
)

var dashes = []vg.Length{vg.Points(4), vg.Points(3)}

// What is drawn: seconds around the beginning of EBB.
const before, after = -0.5, 5.0

// trace is one disk over time. Windows beyond open are drawn as open.
type trace struct {
	window, inFlight, rate, grace, longest plotter.XYs
	held                                   []span // admission is closed
}

// span is between two times, in seconds.
type span struct{ from, to float64 }

const openWindow = 130

func traceOf(shape string, law sim.NamedLaw, seed uint64) trace {
	var t trace
	const bin = 40 // ticks, of a rate: 200 ms
	var counts []uint64
	var longest []time.Duration
	sim.Run(sim.ByName(shape), law.Policy, law.Law, seed, func(disk int, p sim.Point) {
		if disk > 0 {
			return
		}
		x := p.At.Seconds()
		counts, longest = append(counts, p.Completed), append(longest, p.Longest)
		if x < before || x > after {
			return
		}
		t.window = append(t.window, plotter.XY{X: x, Y: float64(min(p.Window, openWindow))})
		t.inFlight = append(t.inFlight, plotter.XY{X: x, Y: float64(p.InFlight)})
		t.grace = append(t.grace, plotter.XY{X: x, Y: float64(p.Grace) / float64(time.Millisecond)})
		if p.State == drain.Holding || p.State == drain.Drained {
			if n := len(t.held); n > 0 && x-t.held[n-1].to < 0.02 {
				t.held[n-1].to = x
			} else {
				t.held = append(t.held, span{x, x})
			}
		}
		if n := len(counts); n > bin {
			t.longest = append(t.longest, plotter.XY{X: x, Y: millisOf(slices.Max(longest[n-bin:]))})
			t.rate = append(t.rate, plotter.XY{X: x, Y: float64(counts[n-1]-counts[n-1-bin]) * 5})
		}
	})
	return t
}

// plotOverTime draws the default law on some disks, one column each.
func plotOverTime(path string) error {
	shapes := []string{"smooth 200, 64", "sliced 200, 64", "40 at once, 120", "idle, then busy", "hangs for 2 s"}
	rows := make([][]*plot.Plot, 3)
	for i, name := range shapes {
		t := traceOf(name, sim.Laws[0], 3)
		first := panel(i, name, "requests")
		lines(first, line{"window", t.window, chart.Orange, nil}, line{"in flight", t.inFlight, chart.Blue, nil})
		first.Y.Max = openWindow + 40
		second := panel(i, "", "requests/s, over 200 ms")
		lines(second, line{"", t.rate, chart.Green, nil})
		third := panel(i, "", "grace period, ms")
		budget := plotter.XYs{{X: before, Y: 150}, {X: after, Y: 150}}
		lines(third, line{"latest", t.grace, chart.Blue, nil}, line{"budget", budget, chart.Grey, dashes})
		third.Y.Max = max(third.Y.Max*1.25, 200)
		third.X.Label.Text = "seconds since EBB"
		for row, p := range []*plot.Plot{first, second, third} {
			shade(p, t.held)
			rows[row] = append(rows[row], p)
		}
	}
	return chart.Save(path, rows, 250, 170)
}

// plotLaws draws the windows of some laws on some disks.
func plotLaws(path string) error {
	rows := make([][]*plot.Plot, 2)
	colours := map[string]color.RGBA{"adaptive": chart.Blue, "p95": chart.Orange, "AIMD": chart.Green, "bisection": chart.Purple, "rate": chart.Grey}
	for i, name := range []string{"smooth 200, 64", "sliced 200, 64", "40 at once, 120", "parallel 200 ms, 64"} {
		windows, rates := panel(i, name, "window"), panel(i, "", "requests/s, over 200 ms")
		for _, law := range sim.Laws {
			if c, drawn := colours[law.Name]; drawn {
				t := traceOf(name, law, 3)
				lines(windows, line{law.Name, t.window, c, nil})
				lines(rates, line{"", t.rate, c, nil})
			}
		}
		windows.Y.Max = openWindow + 10
		windows.Legend.Top = true
		if i > 0 {
			windows.Legend = plot.NewLegend()
		}
		rates.X.Label.Text = "seconds since EBB"
		rows[0], rows[1] = append(rows[0], windows), append(rows[1], rates)
	}
	return chart.Save(path, rows, 300, 210)
}

type line struct {
	name   string
	points plotter.XYs
	color  color.RGBA
	dash   []vg.Length
}

func lines(p *plot.Plot, all ...line) {
	for _, l := range all {
		if len(l.points) == 0 {
			continue
		}
		drawn := &plotter.Line{XYs: thin(l.points), LineStyle: draw.LineStyle{Color: l.color, Width: vg.Points(1), Dashes: l.dash}}
		p.Add(drawn)
		if l.name != "" {
			p.Legend.Add(l.name, drawn)
		}
	}
}

// thin leaves out what lies between two points of the same height.
func thin(all plotter.XYs) plotter.XYs {
	var t plotter.XYs
	for i, p := range all {
		if i == 0 || i == len(all)-1 || p.Y != all[i-1].Y || p.Y != all[i+1].Y {
			t = append(t, p)
		}
	}
	return t
}

func panel(column int, title, y string) *plot.Plot {
	if column > 0 {
		y = ""
	}
	p := chart.New(title, "", y)
	p.X.Min, p.X.Max = before, after
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	p.Legend.ThumbnailWidth = vg.Points(12)
	return p
}

// shade marks where admission is closed.
func shade(p *plot.Plot, held []span) {
	for _, h := range held {
		top := max(p.Y.Max, 1)
		ground, err := plotter.NewPolygon(plotter.XYs{{X: h.from, Y: 0}, {X: h.to, Y: 0}, {X: h.to, Y: top}, {X: h.from, Y: top}})
		if err != nil {
			continue
		}
		ground.Color, ground.LineStyle.Width = color.NRGBA{213, 94, 0, 60}, 0
		p.Add(ground)
	}
}
