package stat

import "testing"

func TestOf(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want Stat
	}{
		{nil, Stat{}},
		{[]float64{3}, Stat{3, 3, 3, 1}},
		{[]float64{4, 1}, Stat{2.5, 1, 4, 2}},
		{[]float64{9, 1, 2}, Stat{2, 1, 9, 3}},
	} {
		if got := Of(c.v); got != c.want {
			t.Errorf("Of(%v) = %+v, want %+v", c.v, got, c.want)
		}
	}
	if got := Of([]float64{1000, 2000, 3000}).Scaled(1e-3).Format("%.1f"); got != "2.0 (1.0–3.0)" {
		t.Error(got)
	}
	if got := (Stat{}).Format("%.1f"); got != "–" {
		t.Error(got)
	}
}
