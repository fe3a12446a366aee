/* What runs in the browser: the table's cache, and the 3D view of a crystal (3Dmol.js). */
function loadViewer() {
  return new Promise((resolve) => {
    if (window.$3Dmol) return resolve();
    const script = document.createElement("script");
    script.src = "/assets/3dmol/3Dmol-min.js";
    script.onload = resolve;
    document.head.append(script);
  });
}

window.dash_clientside = Object.assign({}, window.dash_clientside, {
  page: {
    /* Read the table anew when the selection changes. */
    reload: async function () {
      const table = await dash_ag_grid.getApiAsync("table");
      table.deselectAll();
      table.purgeInfiniteCache();
      table.paginationGoToFirstPage();
      return window.dash_clientside.no_update;
    },

    /* Tell the table how many rows there are, once both they have been counted and the first are shown. */
    setCount: async function (count, first, statement) {
      if (count && first && count.statement === statement) {
        (await dash_ag_grid.getApiAsync("table")).setRowCount(count.rows, true);
      }
      return window.dash_clientside.no_update;
    },

    /* Show a crystal, a CIF file. */
    showCrystal: async function (cif) {
      const element = document.getElementById("viewer");
      if (!element) return window.dash_clientside.no_update;
      element.replaceChildren();
      if (!cif) return window.dash_clientside.no_update;
      await loadViewer();
      const viewer = $3Dmol.createViewer(element, { backgroundColor: "white" });
      viewer.addModel(cif, "cif");
      viewer.addUnitCell(undefined, { box: { color: "gray" }, alabel: "a", blabel: "b", clabel: "c" });
      viewer.setStyle({}, { sphere: { scale: 0.3, colorscheme: "Jmol" }, stick: { radius: 0.1, colorscheme: "Jmol" } });
      viewer.zoomTo();
      viewer.rotate(20, "y");
      viewer.rotate(15, "x");
      viewer.render();
      element.dataset.atoms = viewer.selectedAtoms({}).length;
      return window.dash_clientside.no_update;
    },
  },
});
