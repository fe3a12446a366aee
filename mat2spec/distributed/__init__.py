"""Everything that runs on Ray: training, screening, ingestion and DFT. The only folder that imports ray."""
