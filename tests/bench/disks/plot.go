package main

import (
	"image/color"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/ebb-vmm/ebb/tests/bench/chart"
	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// styles are the lines' colours and dashes.
var styles = map[string]struct {
	color color.RGBA
	dash  []vg.Length
}{
	"ebb uring":    {chart.Blue, nil},
	"QEMU uring":   {chart.Orange, nil},
	"ebb native":   {chart.Blue, []vg.Length{vg.Points(6), vg.Points(3)}},
	"QEMU native":  {chart.Orange, []vg.Length{vg.Points(6), vg.Points(3)}},
	"ebb threads":  {chart.Blue, []vg.Length{vg.Points(1.5), vg.Points(2)}},
	"QEMU threads": {chart.Orange, []vg.Length{vg.Points(1.5), vg.Points(2)}},
	bareName:       {chart.Grey, nil},
}

// plot draws rates over the number of disks, one panel for each place and the
// largest depth; bars are the spread. The name's ending, svg or png, is the format.
func (r *record) plot(path string) error {
	var panels []*plot.Plot
	for _, place := range []string{onTmpfs, onFile} {
		if len(r.setups(place)) == 0 {
			continue
		}
		p, err := r.panel(place)
		if err != nil {
			return err
		}
		panels = append(panels, p)
	}
	return chart.Save(path, [][]*plot.Plot{panels}, 480, 360)
}

func (r *record) panel(place string) (*plot.Plot, error) {
	depth := 0
	for _, s := range r.setups(place) {
		depth = max(depth, s.Depth)
	}
	title := map[string]string{onTmpfs: "tmpfs", onFile: "real file system"}[place] + ", " + strconv.Itoa(depth) + " requests a disk"
	p := chart.New(title, "disks", "thousands of 4 KiB reads per second")
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = diskTicks(r.setups(place))
	top := 0.0
	for _, name := range r.measured() {
		var points spreadPoints
		for _, s := range r.setups(place) {
			if got := r.stat(name, s, iops).Scaled(1e-3); s.Depth == depth && got.N > 0 {
				points = append(points, point{float64(s.Disks), got})
				top = max(top, got.High)
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		bars, err := plotter.NewYErrorBars(points)
		if err != nil {
			return nil, err
		}
		style := styles[name]
		line.Width, line.Color, line.Dashes = vg.Points(1.5), style.color, style.dash
		dots.Shape, dots.Color = draw.CircleGlyph{}, style.color
		bars.Color = style.color
		p.Add(line, dots, bars)
		p.Legend.Add(name, line, dots)
	}
	p.Y.Max = top * 1.35 // room for the legend
	return p, nil
}

type point struct {
	disks float64
	got   stat.Stat
}

// spreadPoints are points with error bars.
type spreadPoints []point

func (p spreadPoints) Len() int                { return len(p) }
func (p spreadPoints) XY(i int) (x, y float64) { return p[i].disks, p[i].got.Median }
func (p spreadPoints) YError(i int) (low, high float64) {
	return p[i].got.Median - p[i].got.Low, p[i].got.High - p[i].got.Median
}

// diskTicks marks the numbers that were measured.
func diskTicks(setups []setup) plot.ConstantTicks {
	var t plot.ConstantTicks
	for _, s := range setups {
		t = append(t, plot.Tick{Value: float64(s.Disks), Label: strconv.Itoa(s.Disks)})
	}
	return t
}
