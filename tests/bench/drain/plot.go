package main

import (
	"image/color"
	"os"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/ebb-vmm/ebb/migration/drain"
	"github.com/ebb-vmm/ebb/migration/drain/sim"
)

// Colours that the colour-blind can tell apart.
var (
	blue   = color.RGBA{0, 114, 178, 255}
	orange = color.RGBA{213, 94, 0, 255}
	green  = color.RGBA{0, 158, 115, 255}
	purple = color.RGBA{204, 121, 167, 255}
	grey   = color.RGBA{110, 110, 110, 255}
	dashes = []vg.Length{vg.Points(4), vg.Points(3)}
)

// What is drawn: seconds around the beginning of EBB.
const before, after = -0.5, 5.0

// trace is one disk over time. Windows beyond open are drawn as open.
type trace struct {
	window, inFlight, rate, grace plotter.XYs
	states                        plotter.XYs
}

const openWindow = 130

func traceOf(shape string, law sim.NamedLaw, seed uint64) trace {
	var t trace
	const bin = 40 // ticks, of a rate: 200 ms
	var counts []uint64
	sim.Run(sim.ByName(shape), law.Policy, law.Law, seed, func(disk int, p sim.Point) {
		if disk > 0 {
			return
		}
		x := p.At.Seconds()
		counts = append(counts, p.Completed)
		if x < before || x > after {
			return
		}
		t.window = append(t.window, plotter.XY{X: x, Y: float64(min(p.Window, openWindow))})
		t.inFlight = append(t.inFlight, plotter.XY{X: x, Y: float64(p.InFlight)})
		t.grace = append(t.grace, plotter.XY{X: x, Y: float64(p.Grace) / float64(time.Millisecond)})
		t.states = append(t.states, plotter.XY{X: x, Y: float64(p.State)})
		if n := len(counts); n > bin {
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
		lines(first, line{"window", t.window, orange, nil}, line{"in flight", t.inFlight, blue, nil})
		first.Y.Max = openWindow + 40
		second := panel(i, "", "requests/s, over 200 ms")
		lines(second, line{"", t.rate, green, nil})
		third := panel(i, "", "grace period, ms")
		budget := plotter.XYs{{X: before, Y: 150}, {X: after, Y: 150}}
		lines(third, line{"latest", t.grace, blue, nil}, line{"budget", budget, grey, dashes})
		third.Y.Max = max(third.Y.Max*1.25, 200)
		third.X.Label.Text = "seconds since EBB"
		for row, p := range []*plot.Plot{first, second, third} {
			shade(p, t.states)
			rows[row] = append(rows[row], p)
		}
	}
	return save(path, rows, 250, 170)
}

// plotLaws draws the windows of some laws on some disks.
func plotLaws(path string) error {
	rows := make([][]*plot.Plot, 2)
	colours := map[string]color.RGBA{"adaptive": blue, "p95": orange, "AIMD": green, "bisection": purple, "rate": grey}
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
	return save(path, rows, 300, 210)
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
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text = title
	if column == 0 {
		p.Y.Label.Text = y
	}
	p.X.Min, p.X.Max, p.Y.Min = before, after, 0
	p.Legend.Top = true
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	p.Legend.ThumbnailWidth, p.Legend.Padding = vg.Points(12), vg.Points(2)
	p.Add(plotter.NewGrid())
	return p
}

// shade marks where admission is closed.
func shade(p *plot.Plot, states plotter.XYs) {
	closed := func(i int) bool {
		s := drain.State(states[i].Y)
		return s == drain.Holding || s == drain.Drained
	}
	for i := 0; i < len(states); i++ {
		if !closed(i) {
			continue
		}
		from := states[i].X
		for i < len(states) && closed(i) {
			i++
		}
		to := states[min(i, len(states)-1)].X
		top := max(p.Y.Max, 1)
		ground, err := plotter.NewPolygon(plotter.XYs{{X: from, Y: 0}, {X: to, Y: 0}, {X: to, Y: top}, {X: from, Y: top}})
		if err != nil {
			continue
		}
		ground.Color, ground.LineStyle.Width = color.NRGBA{213, 94, 0, 60}, 0
		p.Add(ground)
	}
}

func save(path string, rows [][]*plot.Plot, width, height float64) error {
	columns := len(rows[0])
	img := vgsvg.New(vg.Points(width*float64(columns)), vg.Points(height*float64(len(rows))))
	dc := draw.New(img)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	tiles := draw.Tiles{Rows: len(rows), Cols: columns, PadX: vg.Points(10), PadY: vg.Points(8), PadTop: vg.Points(6), PadBottom: vg.Points(6), PadLeft: vg.Points(6), PadRight: vg.Points(10)}
	for i, canvases := range plot.Align(rows, tiles, dc) {
		for k, c := range canvases {
			rows[i][k].Draw(c)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := img.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
