package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/migration"
)

// Programs get a report of a migration that failed, too; people read why on standard error.
func TestMigrationResult(t *testing.T) {
	for _, c := range []struct {
		json bool
		err  string
		want string
	}{
		{true, "", `{"report":{"total_ns":`},
		{true, "the link was lost", `"error":"the link was lost"`},
		{false, "", "migrated in 1.5 s"},
		{false, "the link was lost", ""},
	} {
		r := &migration.Report{Total: 1500 * time.Millisecond, Error: c.err}
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		(&migrationView{json: c.json, out: &out}).result(r, raw)
		if c.want == "" && out.Len() > 0 || !strings.Contains(out.String(), c.want) {
			t.Errorf("json %v, error %q: %s", c.json, c.err, out.String())
		}
	}
}
