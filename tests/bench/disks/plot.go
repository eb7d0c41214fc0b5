package main

import (
	"image/color"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgimg" // the formats png
	_ "gonum.org/v1/plot/vg/vgsvg" // and svg

	"github.com/ebb-vmm/ebb/tests/bench/stat"
)

// styles are the lines' colours, which the colour-blind can tell apart, and dashes.
var styles = map[string]struct {
	color color.RGBA
	dash  []vg.Length
}{
	"ebb uring":    {color.RGBA{0, 114, 178, 255}, nil},
	"QEMU uring":   {color.RGBA{213, 94, 0, 255}, nil},
	"ebb native":   {color.RGBA{0, 114, 178, 255}, []vg.Length{vg.Points(6), vg.Points(3)}},
	"QEMU native":  {color.RGBA{213, 94, 0, 255}, []vg.Length{vg.Points(6), vg.Points(3)}},
	"ebb threads":  {color.RGBA{0, 114, 178, 255}, []vg.Length{vg.Points(1.5), vg.Points(2)}},
	"QEMU threads": {color.RGBA{213, 94, 0, 255}, []vg.Length{vg.Points(1.5), vg.Points(2)}},
	bareName:       {color.RGBA{110, 110, 110, 255}, nil},
}

// plot draws rates over the number of disks, one panel for each place and the
// largest depth; bars are the spread. The name's ending, svg or png, is the format.
func (r *record) plot(path string) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
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
	const width, height = 480, 360 // points, a panel
	img, err := draw.NewFormattedCanvas(vg.Points(width*float64(len(panels))), vg.Points(height), strings.TrimPrefix(filepath.Ext(path), "."))
	if err != nil {
		return err
	}
	dc := draw.New(img)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Points(16), PadTop: vg.Points(6), PadBottom: vg.Points(6), PadLeft: vg.Points(6), PadRight: vg.Points(12)}
	for i, c := range plot.Align([][]*plot.Plot{panels}, tiles, dc)[0] {
		panels[i].Draw(c)
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

func (r *record) panel(place string) (*plot.Plot, error) {
	depth := 0
	for _, s := range r.setups(place) {
		depth = max(depth, s.Depth)
	}
	p := plot.New()
	p.Title.Text = map[string]string{onTmpfs: "tmpfs", onFile: "real file system"}[place] + ", " + strconv.Itoa(depth) + " requests a disk"
	p.X.Label.Text = "disks"
	p.Y.Label.Text = "thousands of 4 KiB reads per second"
	p.Y.Min = 0
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = diskTicks(r.setups(place))
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(2)
	p.Add(plotter.NewGrid())
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
