// Package chart draws the pictures of docs/bench.
package chart

import (
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgimg" // the formats png
	_ "gonum.org/v1/plot/vg/vgsvg" // and svg
)

// Colours that the colour-blind can tell apart.
var (
	Blue   = color.RGBA{0, 114, 178, 255}
	Orange = color.RGBA{213, 94, 0, 255}
	Green  = color.RGBA{0, 158, 115, 255}
	Purple = color.RGBA{204, 121, 167, 255}
	Grey   = color.RGBA{110, 110, 110, 255}
)

// New is a panel with a grid, whose values begin at 0.
func New(title, x, y string) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Y.Min = 0
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(2)
	p.Add(plotter.NewGrid())
	return p
}

// Save writes rows of equally many panels to a file, whose ending, svg or png, is the format. A panel has the width and
// height, in points.
func Save(path string, rows [][]*plot.Plot, width, height float64) error {
	columns := len(rows[0])
	img, err := draw.NewFormattedCanvas(vg.Points(width*float64(columns)), vg.Points(height*float64(len(rows))), strings.TrimPrefix(filepath.Ext(path), "."))
	if err != nil {
		return err
	}
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
